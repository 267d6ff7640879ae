"""What a benchmark found: rows, their geometric mean, as a table and as JSON."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from rich.markup import escape
from rich.table import Table

OURS, TORCH = "flaxnets", "torch eager"


@dataclass
class Timed:
    """One form of a contender: its name, steps of a dispatch, seconds of a step by round."""

    form: str
    steps_per_dispatch: int
    seconds: list[float] = field(default_factory=list)


@dataclass
class Row:
    """One contender on one network; what was not measured is None, and `reason` says why.

    Attributes:
        architecture: its name.
        variant: its size.
        batch: examples a step.
        contender: who trained.
        form: of dispatch, or threads and memory format: the one of `timed` that was fastest.
        steps_per_dispatch: steps that the device is given at once.
        step_ms: milliseconds a step, the median of all rounds.
        spread: between the quartiles of the rounds, as a share of the median.
        examples_per_s: examples a second.
        first_step_cold_s: seconds from starting the process to the end of the first step.
        first_step_warm_s: the same where compilers find what they have kept.
        peak_memory_mb: of the process until the end of the first step, in MiB.
        ratio_to_torch_eager: torch's time over this one; above 1 this one is faster.
        reason: of a failure.
        timed: every form and all its times.
    """

    architecture: str
    variant: str
    batch: int
    contender: str
    form: str = ""
    steps_per_dispatch: int | None = None
    step_ms: float | None = None
    spread: float | None = None
    examples_per_s: float | None = None
    first_step_cold_s: float | None = None
    first_step_warm_s: float | None = None
    peak_memory_mb: float | None = None
    ratio_to_torch_eager: float | None = None
    reason: str = ""
    timed: list[Timed] = field(default_factory=list)


@dataclass(frozen=True)
class Overhead:
    """A step of `TrainStep` beside the same step written by hand, which only costs its dispatch.

    Attributes:
        leaves: arrays of the state.
        flaxnets_ms: milliseconds a step, the median of all rounds.
        by_hand_ms: the same of the step written by hand.
        ratio: of both.
    """

    leaves: int
    flaxnets_ms: float
    by_hand_ms: float
    ratio: float


@dataclass(frozen=True)
class Result:
    """All rows, and the machine that they were measured on.

    >>> rows = [Row("mlp", "", 32, OURS, ratio_to_torch_eager=ratio) for ratio in (2.0, 8.0)]
    >>> Result({}, rows).geometric_mean
    4.0
    """

    machine: Mapping[str, str]
    rows: Sequence[Row] = field(default_factory=list)
    overhead: Overhead | None = None

    @property
    def geometric_mean(self) -> float | None:
        """Of our own ratios to torch eager; None without any."""
        ratios = [
            row.ratio_to_torch_eager
            for row in self.rows
            if row.contender == OURS and row.ratio_to_torch_eager is not None
        ]
        return statistics.geometric_mean(ratios) if ratios else None

    @property
    def complete(self) -> bool:
        """Whether our own step was timed on every network."""
        return not any(row.reason for row in self.rows if row.contender == OURS)

    def to_json(self) -> str:
        """`{"machine": {...}, "cases": [...], "geometric_mean": ..., "overhead": ...}`."""
        content = {
            "machine": dict(self.machine),
            "cases": [asdict(row) for row in self.rows],
            "geometric_mean": self.geometric_mean,
            "overhead": self.overhead and asdict(self.overhead),
        }
        return json.dumps(content, indent=2)

    def to_table(self) -> Table:
        """One line a row; a failed one says why."""
        table = Table(title="time of a training step")
        for column in COLUMNS:
            table.add_column(column, justify="left" if column in LEFT else "right")
        for row in self.rows:
            table.add_row(*map(escape, cells(row)), end_section=row is self.rows[-1])
        return table

    def summary(self) -> list[str]:
        """The figures under the table."""
        lines = []
        if self.geometric_mean is not None:
            lines.append(f"geometric mean: {self.geometric_mean:.2f} times torch eager")
        if self.overhead is not None:
            lines.append(
                f"overhead: {self.overhead.ratio:.2f} times a step written by hand "
                f"({self.overhead.leaves} leaves, {self.overhead.flaxnets_ms:.3f} and "
                f"{self.overhead.by_hand_ms:.3f} ms)"
            )
        return lines


LEFT = ("architecture", "contender", "form")  # columns of words
COLUMNS = (
    *("architecture", "batch", "contender", "form", "step ms", "spread", "examples/s"),
    *("first step cold", "warm", "peak MiB", "ratio to torch eager"),
)


def cells(row: Row) -> list[str]:
    """A row as text, in the order of `COLUMNS`.

    >>> cells(Row("mlp", "default", 32, "keras", reason="keras is not installed"))[3]
    'keras is not installed'
    """
    variant = "" if row.variant == "default" else f" {row.variant}"
    several = (row.steps_per_dispatch or 1) > 1
    form = f"{row.form}, {row.steps_per_dispatch} steps" if several else row.form
    return [
        f"{row.architecture}{variant}",
        str(row.batch),
        row.contender,
        row.reason or form.replace("_", " "),
        _number(row.step_ms, ".3f"),
        _number(row.spread, ".0%"),
        _number(row.examples_per_s, ",.0f"),
        _number(row.first_step_cold_s, ".1f", " s"),
        _number(row.first_step_warm_s, ".1f", " s"),
        _number(row.peak_memory_mb, ",.0f"),
        _number(row.ratio_to_torch_eager, ".2f"),
    ]


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"
