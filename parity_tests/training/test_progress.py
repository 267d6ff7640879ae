"""Progress: plain lines off a terminal, a bar with the figures on one."""

import io

from rich.console import Console

from flaxnets.training.progress import ProgressLog


def _shown(terminal):
    target = io.StringIO()
    console = Console(file=target, force_terminal=terminal, width=120)
    with ProgressLog("lenet", 3, console) as log:
        for step in (1, 2, 3):
            log(step, {"loss": 1 / step})
    return target.getvalue()


def test_plain_lines():
    """Off a terminal the last step is always a line, without control characters."""
    text = _shown(terminal=False)
    assert "lenet 3/3  loss 0.3333" in text
    assert "steps/s" in text
    assert "\x1b" not in text


def test_bar():
    """On a terminal there is a bar with count, loss and speed."""
    text = _shown(terminal=True)
    assert "3/3" in text
    assert "loss 0.3333" in text
    assert "steps/s" in text
