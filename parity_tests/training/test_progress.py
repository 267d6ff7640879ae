"""What is shown of a run and how the run got on: a bar on a terminal, plain lines elsewhere."""

import io
import time

import pytest
from rich.console import Console

from flaxnets.training.progress import SECONDS_BETWEEN_LINES, ProgressLog


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets: `clock.now` in seconds."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(time, "perf_counter", lambda: Clock.now)
    return Clock


def _show(calls, clock, terminal=False, steps=30, width=120, **more):
    """What is written for calls of (seconds since the last, step, metrics)."""
    target = io.StringIO()
    console = Console(file=target, force_terminal=terminal, width=width)
    with ProgressLog("lenet", steps, console, **more) as log:
        for seconds, step, metrics in calls:
            clock.now += seconds
            log(step, metrics)
    return target.getvalue()


STEPS = [(60.0, 1, {"loss": 1.0}), (0.5, 11, {"loss": 0.5}), (0.5, 30, {"loss": 0.25})]


def test_plain_lines(clock):
    """Off a terminal there is a line now and then and for the last step, without control codes."""
    first, last = _show(STEPS, clock).splitlines()
    assert first == "lenet 1/30  loss 1.0000  0.017 steps/s"
    assert last == "lenet 30/30  loss 0.2500  29 steps/s"


def test_compilation_is_not_counted(clock):
    """The speed and the time left are those since the first step."""
    calls = [(60.0, 1, {"loss": 1.0}), (SECONDS_BETWEEN_LINES, 11, {"loss": 0.5})]
    *_, last = _show(calls, clock).splitlines()
    assert last == "lenet 11/30  loss 0.5000  2 steps/s  0:00:10 left"


def test_several_steps_a_call(clock):
    """A call that is ten steps further counts as ten steps."""
    calls = [(9.0, 10, {"loss": 1.0}), (5.0, 20, {"loss": 0.5}), (5.0, 30, {"loss": 0.2})]
    lines = _show(calls, clock).splitlines()
    assert lines[0] == "lenet 10/30  loss 1.0000  1.1 steps/s"
    assert lines[1] == "lenet 20/30  loss 0.5000  2 steps/s  0:00:05 left"
    assert lines[2] == "lenet 30/30  loss 0.2000  2 steps/s"


def test_resumed(clock):
    """Steps that an earlier run has taken are neither speed nor time."""
    calls = [(10.0, 21, {"loss": 1.0}), (6.0, 24, {"loss": 0.5})]
    lines = _show(calls, clock, first=20).splitlines()
    assert lines[0] == "lenet 21/30  loss 1.0000  0.1 steps/s"
    assert lines[1] == "lenet 24/30  loss 0.5000  0.5 steps/s  0:00:12 left"


def test_evaluation(clock):
    """An evaluation has a line at once, beside the last loss, and stays until the next."""
    calls = [
        (1.0, 1, {"loss": 1.0}),
        (0.1, 1, {"eval_accuracy": 0.5}),
        (1.0, 3, {"loss": 0.9, "eval_accuracy": 0.6}),
        (7.0, 17, {"loss": 0.8}),
    ]
    lines = _show(calls, clock).splitlines()
    assert lines[0].startswith("lenet 1/30  loss 1.0000  eval_accuracy 0.5000  0.91 steps/s")
    assert lines[1].startswith("lenet 3/30  loss 0.9000  eval_accuracy 0.6000  1.8 steps/s")
    assert lines[2].startswith("lenet 17/30  loss 0.8000  eval_accuracy 0.6000  2 steps/s")


def test_stopped_early(clock):
    """The last step that was taken is a line even where more were wanted, or one failed."""
    assert _show(STEPS[:2], clock).splitlines()[-1].startswith("lenet 11/30  loss 0.5000")
    target = io.StringIO()

    def fail():
        with ProgressLog("lenet", 9, Console(file=target)) as log:
            log(2, {"loss": 3e-5})
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()
    assert "lenet 2/9  loss 3.000e-05" in target.getvalue()


def test_no_control_codes(clock):
    """A title in brackets is no markup, and a long line is not broken."""
    text = _show([(1.0, 30, {f"metric_{i}": 0.5 for i in range(9)})], clock, width=40)
    assert text.count("\n") == 1
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [80, 160])
def test_bar(clock, width):
    """On a terminal there is a bar with count, speed and time left; all metrics are under it."""
    metrics = {"loss": 0.5, "accuracy": 0.1, "gradient_norm": 12.0, "lr": 3e-5}
    calls = [*STEPS[:2], (0.0, 11, {**metrics, "eval_accuracy": 0.5, "eval_loss": 0.5})]
    text = _show(calls, clock, terminal=True, width=width)
    bar, under = text.rpartition("lenet")[2].split("\n", 1)
    for wanted in ("11/30", "20 steps/s", "0:00:01 left"):
        assert wanted in bar
    words = under.split()
    for name in (*metrics, "eval_accuracy", "eval_loss"):
        assert name in words
    assert "…" not in text
