"""Showing how a run gets on: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

SECONDS_BETWEEN_LINES = 5.0
EVALUATION = "eval_"  # how a figure of an evaluation begins


class ProgressLog:
    """Call it with a step's number and metrics after each step, or after each few.

    The figures of the last evaluation, whose names begin with `eval_`, stay beside them. The
    speed counts from the first call on, so that it is without the time of compilation, and the
    time left is shown from the second on.

    Args:
        title: of the run.
        steps: the number of the last one.
        console: where to write.
        first: the step that a resumed run begins after.

    >>> with ProgressLog("lenet", 1, Console(force_terminal=False)) as log:
    ...     log(1, {"loss": 0.5})  # doctest: +ELLIPSIS
    lenet 1/1  loss 0.5000  ... steps/s
    """

    def __init__(
        self, title: str, steps: int, console: Console | None = None, first: int = 0
    ) -> None:
        self._title, self._steps, self._first = title, steps, first
        self._console = console or Console()
        self._began = self._last_line = time.perf_counter()
        self._since: tuple[int, float] | None = None  # step and time of the first call
        self._metrics: dict[str, float] = {}
        self._evaluated: dict[str, float] = {}
        self._waiting = ""  # a line that has not been written yet
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
        )
        self._task = self._bar.add_task(title, total=steps, completed=first, pace="")
        self._under = Text()  # the metrics, which may need several lines
        self._live = Live(Group(self._bar, self._under), console=self._console)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()
        self._write()

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show a step's metrics, the figures of an evaluation after it, or both."""
        now = time.perf_counter()
        evaluated = {name: x for name, x in metrics.items() if name.startswith(EVALUATION)}
        self._evaluated |= evaluated
        self._metrics |= {name: x for name, x in metrics.items() if name not in evaluated}
        values = self._metrics | self._evaluated
        figures = "  ".join(f"{name} {_number(value)}" for name, value in values.items())
        begins = self._since is None
        speed = self._speed(step, now)
        pace = f"{speed:.0f} steps/s" if speed >= 10 else f"{speed:.2g} steps/s"
        if step < self._steps and not begins:
            pace += f"  {timedelta(seconds=round((self._steps - step) / speed))} left"
        if self._console.is_terminal:
            self._bar.update(self._task, completed=step, pace=pace)
            self._under.plain = figures
            return
        self._waiting = f"{self._title} {step}/{self._steps}  {figures}  {pace}"
        overdue = now - self._last_line >= SECONDS_BETWEEN_LINES
        if overdue or evaluated or step == self._steps:
            self._last_line = now
            self._write()

    def _speed(self, step: int, now: float) -> float:
        """Steps a second since the first call; at that, since the beginning."""
        since, began = self._since or (self._first, self._began)
        if self._since is None:
            self._since = (step, now)
        elif step == since:  # an evaluation after the first step
            since, began = self._first, self._began
        return max(step - since, 1) / max(now - began, 1e-9)

    def _write(self) -> None:
        if self._waiting:
            self._console.print(self._waiting, highlight=False, markup=False, soft_wrap=True)
        self._waiting = ""


def _number(value: float) -> str:
    """Four decimals, or as many digits of what is smaller.

    >>> _number(0.25), _number(3e-5), _number(0.0), _number(float("nan"))
    ('0.2500', '3.000e-05', '0.0000', 'nan')
    """
    return f"{value:.3e}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"
