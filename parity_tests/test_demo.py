"""The demo end to end: trained, carried over, proved and reported."""

import io
import time

import numpy as np
import pytest
from rich.console import Console

from flaxnets import bridge
from flaxnets.demo import FILES, demo
from flaxnets.parity import CHECKS

pytestmark = pytest.mark.xdist_group("demo")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A demo's folder, what it printed, and the seconds that it took."""
    folder, console = tmp_path_factory.mktemp("demo"), Console(file=io.StringIO(), width=200)
    start = time.monotonic()
    assert demo(folder, console) == 0
    return folder, console.file.getvalue(), round(time.monotonic() - start, 1)


def test_demo(shown, record_property):
    """95 % of the digits, equal predictions, all checks passed, and a whole page."""
    folder, text, seconds = shown
    record_property("demo", seconds)
    accuracy = float(text.split("JAX test accuracy")[1].split("%")[0])
    assert accuracy >= 95
    assert "1000 of 1000 predictions are the same" in text
    assert "FAIL" not in text
    assert {path.name for path in folder.iterdir()} == set(FILES)
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert page.count("✓") == len(CHECKS)
    assert np.isfinite(bridge.read(folder / "model.safetensors")["fc3.bias"]).all()


def test_report_opens(shown, browse, record_property):
    """The report's numbers and what a browser shows of it: both pictures, every check."""
    folder, text, _ = shown
    start = time.monotonic()
    script = """
        addEventListener("load", () => {
            const drawn = [...document.images].filter((image) => image.naturalWidth > 400);
            document.title = `${drawn.length} pictures`;
        });
    """
    dom = browse((folder / "report.html").read_text(), script=script)
    record_property("open report", round(time.monotonic() - start, 1))
    assert "<title>2 pictures</title>" in dom
    assert dom.count("✓") == len(CHECKS)
    assert f"finds {text.split('JAX test accuracy')[1].split()[0]} of 1000 test digits" in dom
