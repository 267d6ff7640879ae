"""Tables: the figures agree with torch's count and with arithmetic."""

import io

import pytest
from flax import nnx
from rich.console import Console

import flaxnets
from flaxnets import specs, summary
from flaxnets.bridge import convert

ALL = [(name, variant) for name in flaxnets.names() for variant in specs.variants(name)]


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
    text = _text(summary.show(flaxnets.spec("bert", "tiny", num_hidden_layers=2)))
    rows = {line.split()[3]: line.split()[-2] for line in text.splitlines() if ".query.w" in line}
    costs = [rows[f"bert.encoder.layer.{n}.attention.self.query.weight"] for n in (0, 1)]
    assert costs == [f"{7 * 6 * (2 * 6 + 1):,}"] * 2


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_every_variant_is_called(name, variant):
    """Every module of every variant that has weights is called where costs are counted."""
    spec = flaxnets.spec(name, variant)
    model = nnx.eval_shape(lambda: flaxnets.build(spec))
    calls = summary._calls(spec, model)
    assert "" in calls
    assert set(calls) <= {name for _, name, _ in convert.modules(model)}


@pytest.mark.parametrize("name", [name for name in flaxnets.names() if "transformer" in name])
def test_show_with_flags(name):
    """Layers that are called with flags, and not arrays alone, are shown with their cost."""
    text = _text(summary.show(flaxnets.spec(name, "tiny")))
    assert "self_attn.in_proj_weight" in text
    assert text.splitlines()[-2].split()[-2].replace(",", "").isdecimal()


def test_show_too_large():
    """A size that overflows in XLA is one line, and a number in the count of parameters."""
    spec = flaxnets.spec("feedforward", "tiny", in_features=2**31 - 1, hidden_size=2**31 - 1)
    assert summary.count_parameters(spec) == (2**31 - 1) * (2**31 - 1 + 1 + 3) + 3
    vast = flaxnets.spec("image_autoencoder", "tiny", in_shape=(2**31 - 1,) * 3)
    for large in (spec, vast):  # arrays of 2**62 and of 2**93 numbers
        with pytest.raises(specs.SpecError, match="an array has more numbers than XLA counts"):
            summary.show(large)


def test_memory(monkeypatch):
    """A network that does not fit is refused by size, and nothing is allocated."""
    spec = flaxnets.spec("feedforward", hidden_size=2**31 - 1)
    with pytest.raises(specs.SpecError, match="4 times 238,370,684,827 weights take 3,55"):
        summary.require_memory(spec, copies=4)
    monkeypatch.setattr(summary, "free_memory", lambda device: 4 * 22_210)
    fits = flaxnets.spec("feedforward")
    summary.require_memory(fits, copies=1)
    summary.require_memory(fits, copies=2, devices=2)
    with pytest.raises(specs.SpecError, match="2 times"):
        summary.require_memory(fits, copies=2)


def test_list():
    """Every architecture has a row."""
    text = _text(summary.list_architectures())
    assert all(name in text for name in flaxnets.names())
