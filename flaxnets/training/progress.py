"""Showing how a run gets on: a bar on a terminal, plain lines elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

SECONDS_BETWEEN_LINES = 5.0


class ProgressLog:
    """Call it after every step with the step's number and metrics.

    Args:
        title: of the run.
        steps: in all.
        console: where to write.

    >>> with ProgressLog("lenet", 1, Console(force_terminal=False)) as log:
    ...     log(1, {"loss": 0.5})  # doctest: +ELLIPSIS
    lenet 1/1  loss 0.5000  ... steps/s
    """

    def __init__(self, title: str, steps: int, console: Console | None = None) -> None:
        self._title, self._steps = title, steps
        self._console = console or Console()
        self._began = self._last_line = time.perf_counter()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=steps, figures="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        """Show a step."""
        now = time.perf_counter()
        speed = step / max(now - self._began, 1e-9)
        figures = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        figures = f"{figures}  {speed:.0f} steps/s"
        self._bar.update(self._task, completed=step, figures=figures)
        overdue = now - self._last_line >= SECONDS_BETWEEN_LINES
        if not self._console.is_terminal and (overdue or step == self._steps):
            self._last_line = now
            self._console.print(f"{self._title} {step}/{self._steps}  {figures}", highlight=False)
