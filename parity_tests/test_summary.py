"""Tables: the figures agree with torch's count and with arithmetic."""

import io

import pytest
from rich.console import Console

import flaxnets
from flaxnets import summary


def _text(table):
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("name", flaxnets.names())
def test_parameters(name):
    """Counted without allocation, and in the torch twin."""
    twin = flaxnets.create(name, "torch", "tiny")
    expected = sum(parameter.numel() for parameter in twin.parameters())
    assert summary.count_parameters(flaxnets.spec(name, "tiny")) == expected


def test_show():
    """Both names, both layouts, and the FLOPs of a matrix product: 2 x 100 x 200 and a sum."""
    text = _text(summary.show(flaxnets.spec("feedforward")))
    assert "linear1.kernel" in text
    assert "linear1.weight" in text
    assert "(100, 200)" in text
    assert "(200, 100)" in text
    assert "40,200" in text


def test_show_in_evaluation():
    """A network that draws numbers in training is shown, layers that are alike with one cost."""
    text = _text(summary.show(flaxnets.spec("bert", "tiny")))
    rows = {line.split()[3]: line.split()[-2] for line in text.splitlines() if ".query.w" in line}
    costs = [rows[f"bert.encoder.layer.{n}.attention.self.query.weight"] for n in (0, 1)]
    assert costs == [f"{7 * 6 * (2 * 6 + 1):,}"] * 2


def test_list():
    """Every architecture has a row."""
    text = _text(summary.list_architectures())
    assert all(name in text for name in flaxnets.names())
