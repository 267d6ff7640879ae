"""The demo end to end: trained, carried over, proved and reported."""

import io

import numpy as np
from rich.console import Console

from flaxnets import bridge
from flaxnets.demo import FILES, demo
from flaxnets.parity import CHECKS


def test_demo(tmp_path):
    """95 % of the digits, equal predictions, all checks passed, and a whole page."""
    console = Console(file=io.StringIO(), width=200)
    assert demo(tmp_path, console) == 0
    text = console.file.getvalue()
    accuracy = float(text.split("JAX test accuracy")[1].split("%")[0])
    assert accuracy >= 95
    assert "1000 of 1000 predictions are the same" in text
    assert "FAIL" not in text
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert page.count("✓") == len(CHECKS)
    assert np.isfinite(bridge.read(tmp_path / "model.safetensors")["fc3.bias"]).all()
