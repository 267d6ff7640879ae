"""How far two collections of arrays are apart, and where most."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from flaxnets.parity.row import Compared, Statistics

SHOWN = 5  # arrays of a check in a report


class Difference(NamedTuple):
    """The largest error and the name of the array that has it."""

    error: float
    worst: str


def relative_error(truth: np.ndarray, other: np.ndarray, least: float = 0.0) -> float:
    """Largest difference over the largest magnitude of the truth; NaN or infinity is infinite.

    Args:
        truth: what is right.
        other: what is judged.
        least: what the difference is divided by where the truth is smaller.

    >>> relative_error(np.array([4.0, 0.0]), np.array([4.0, 1.0]))
    0.25
    """
    truth, other = (np.asarray(array, np.float64) for array in (truth, other))
    if not (np.isfinite(truth).all() and np.isfinite(other).all()):
        return np.inf
    gap = np.max(np.abs(truth - other), initial=0.0)
    scale = np.max(np.abs(truth), initial=least)
    if scale == 0:
        return np.inf if gap else 0.0
    return float(gap / scale)


def errors(truth: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The error of every array of the truth; infinite where the other side's has another form.

    >>> errors({"a": np.ones(2)}, {})
    {'a': inf}
    """
    return {
        name: relative_error(array, other[name])
        if name in other and other[name].shape == array.shape
        else np.inf
        for name, array in truth.items()
    }


def compared(
    truth: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]
) -> tuple[Compared, ...]:
    """The worst few arrays with both sides' statistics.

    >>> compared({"a": np.ones(2)}, {})[0].flax is None
    True
    """
    found = errors(truth, other) | {name: np.inf for name in other if name not in truth}
    worst = sorted(found, key=lambda name: -found[name])[:SHOWN]
    return tuple(
        Compared(name, found[name], _statistics(truth.get(name)), _statistics(other.get(name)))
        for name in worst
    )


def _statistics(array: np.ndarray | None) -> Statistics | None:
    if array is None or not array.size:
        return None
    array = array.astype(np.float64)
    figures = array.mean(), array.std(), array.min(), array.max()
    return Statistics(*map(float, figures))


def compare(
    truth: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], floor: float = 0.0
) -> Difference:
    """The worst of all arrays; names, shapes and dtypes have to be the same.

    Args:
        truth: arrays by name.
        other: those that are judged.
        floor: share of the largest magnitude of all arrays that one is judged against if its
            own is smaller.

    >>> compare({"a": np.ones(2)}, {"a": np.ones(3)})
    Difference(error=inf, worst='a: shape (3,) is not (2,)')
    """
    worst = Difference(0.0, "")
    finite = (np.abs(array[np.isfinite(array)]) for array in truth.values())
    least = floor * max((float(np.max(x, initial=0.0)) for x in finite), default=0.0)
    for name in sorted(truth.keys() | other.keys()):
        if name not in truth or name not in other:
            side = "second" if name in truth else "first"
            found = Difference(np.inf, f"{name}: the {side} side has none")
        elif truth[name].shape != other[name].shape:
            shapes = f"{other[name].shape} is not {truth[name].shape}"
            found = Difference(np.inf, f"{name}: shape {shapes}")
        elif truth[name].dtype != other[name].dtype:
            dtypes = f"{other[name].dtype} is not {truth[name].dtype}"
            found = Difference(np.inf, f"{name}: dtype {dtypes}")
        else:
            found = Difference(relative_error(truth[name], other[name], least), name)
        if not worst.worst or found.error > worst.error:
            worst = found
    if not worst.worst:
        return Difference(np.inf, "nothing to compare")
    return worst
