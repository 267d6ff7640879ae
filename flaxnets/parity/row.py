"""What one check found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Statistics:
    """An array in four numbers."""

    mean: float
    std: float
    min: float
    max: float


@dataclass(frozen=True)
class Compared:
    """One array of both sides; statistics of a side that lacks it are None."""

    name: str
    error: float
    torch: Statistics | None
    flax: Statistics | None


@dataclass(frozen=True)
class Row:
    """One check of one variant.

    Attributes:
        architecture: whose twins were checked.
        variant: of the architecture.
        check: from `CHECKS`.
        passed: whether the error is within the bound.
        error: the largest.
        bound: that it is judged by.
        worst: the array that has it.
        seconds: that the check took.
        place: of a failed check: the first submodule in data-flow order, gradient or optimizer
            slot that differs.
        cause: the likely one, from the known differences between the frameworks.
        arrays: the worst few, worst first.
        layers: the error of every submodule's output in data-flow order (`intermediates`).

    >>> Row("lenet", "tiny", "forward", True, 2e-15, 1e-10, "logits", 0.4).cause
    ''
    """

    architecture: str
    variant: str
    check: str
    passed: bool
    error: float
    bound: float
    worst: str
    seconds: float
    place: str = ""
    cause: str = ""
    arrays: tuple[Compared, ...] = ()
    layers: tuple[tuple[str, float], ...] = ()
