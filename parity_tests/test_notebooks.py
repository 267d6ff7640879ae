"""Notebooks as they are kept: whole, in order, without an error, and at home in the README."""

import json
import re
from pathlib import Path

import pytest

import flaxnets

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
NOTEBOOKS = {path.name: json.loads(path.read_text()) for path in ROOT.glob("notebooks/*.ipynb")}
LARGEST = 1_500_000  # bytes
MACHINE = re.compile(r"/(tmp|home|root|usr|var|Users)/| at 0x[0-9a-f]{6}")


def _cells(notebook, kind):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def _outputs(notebook):
    return [output for cell in _cells(notebook, "code") for output in cell["outputs"]]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_executed(name):
    """Every cell of code has run, once, from top to bottom, and none ended with an error."""
    notebook = NOTEBOOKS[name]
    counts = [cell["execution_count"] for cell in _cells(notebook, "code")]
    assert counts == list(range(1, len(counts) + 1))
    for output in _outputs(notebook):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", output["text"]
    assert any("image/png" in output.get("data", {}) for output in _outputs(notebook))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_reads_anywhere(name):
    """No path or address of one machine, nothing that a diff would show after every run."""
    text = (ROOT / "notebooks" / name).read_text()
    assert len(text) < LARGEST
    for output in _outputs(NOTEBOOKS[name]):
        shown = "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
        assert not MACHINE.search(shown), shown
    for cell in NOTEBOOKS[name]["cells"]:
        assert not cell["metadata"].keys() - {"tags"}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links(name):
    """A link to a file of the repository leads to one."""
    for cell in _cells(NOTEBOOKS[name], "markdown"):
        for link in re.findall(r"\]\(([^)#\s]+)", "".join(cell["source"])):
            assert link.startswith("https://") or (ROOT / "notebooks" / link).exists(), link


def test_lessons():
    """The README's list of lessons is the folder's."""
    assert set(re.findall(r"notebooks/(\w+\.ipynb)", README)) == NOTEBOOKS.keys()


@pytest.mark.parametrize("name", flaxnets.names())
def test_architecture_has_its_lesson(name):
    """The lesson that the table names builds the network."""
    row = next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
    for lesson in re.findall(r"\(notebooks/(\S+)\)", row):
        code = "".join("".join(cell["source"]) for cell in _cells(NOTEBOOKS[lesson], "code"))
        assert f'"{name}' in code
