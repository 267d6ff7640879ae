"""The README's Python, run from top to bottom, and its table of checks."""

import re
from pathlib import Path

from flaxnets import parity

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_snippets(tmp_path, monkeypatch):
    """Every Python block runs, each in the names that the ones before it left."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 3
    names: dict = {}
    for block in blocks:
        exec(block, names)
    assert names["report"].passed


def test_commands_stand_first():
    """The two commands that set everything up come before any heading but the title."""
    head = README.split("\n## ")[0]
    assert "    make demo " in head
    assert "    make test " in head


def test_every_check_is_explained():
    """Each check has a row that says what must agree."""
    assert all(f"| `{check}` |" in README for check in parity.CHECKS)
