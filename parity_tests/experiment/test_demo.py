"""The demo end to end: trained, carried over, proved and reported."""

import contextlib
import io
import time

import numpy as np
import pytest
from rich.console import Console

from flaxnets import bridge
from flaxnets.experiment.demo import MARK, OF_RUN, RUN, demo
from flaxnets.parity import CHECKS
from flaxnets.training.checkpoints import CheckpointError, Checkpoints
from flaxnets.training.loop import TrainingError
from parity_tests import fuzz

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
    assert {path.name for path in folder.iterdir()} == {MARK, RUN, "report.html"}
    assert {path.name for path in (folder / RUN).iterdir()} == {*OF_RUN} - {"examples.txt"}
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert page.count("✓") == len(CHECKS)
    assert np.isfinite(bridge.read(folder / RUN / "model.safetensors")["fc3.bias"]).all()


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


@pytest.mark.parametrize("left", ["notes", "run", "other", "link", "live"])
def test_not_a_demos(tmp_path, left):
    """A folder of something else, or in use, is left as it is: not a file of it is removed."""
    out, console = tmp_path / "mine", Console(file=io.StringIO())
    (out / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "mine" / "run" / "run.json").write_text('{"finished": true}')
    with contextlib.ExitStack() as stack:
        if left == "notes":
            (out / "notes.txt").write_text("mine")
        elif left == "run":  # a run of `flaxnets train`, with all that a demo writes
            for name in OF_RUN:
                (out / name).write_text("mine")
        else:
            (out / MARK).write_text("{}")
        if left == "other":
            (out / "run" / "thesis.tex").write_text("mine")
        if left == "link":
            (out / "run").rename(tmp_path / "precious")
            (out / "run").symlink_to(tmp_path / "precious")
        if left == "live":
            stack.enter_context(Checkpoints(out / "run" / "checkpoints"))
        with (
            fuzz.untouched(tmp_path),
            fuzz.one_line(TrainingError, CheckpointError, OSError),
        ):
            demo(out, console)
            pytest.fail("it was taken")
