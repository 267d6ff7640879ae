"""How two arrays that should be equal are related: by a factor, an offset, an order, a shift."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from flaxnets.parity.compare import relative_error
from flaxnets.parity.tolerances import FLOAT64

ROUNDING = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24}


def agree(truth: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays are equal up to rounding in float64."""
    return truth.shape == other.shape and relative_error(truth, other) <= FLOAT64


def relation(truth: np.ndarray, other: np.ndarray) -> str:
    """How an array differs from the right one, "" where nothing simple explains it.

    >>> relation(np.array([1.0, 2.0, 4.0]), np.array([2.0, 4.0, 8.0]))
    'larger by the factor 2'
    >>> relation(np.array([1.0, 2.0, 4.0]), np.array([4.0, 2.0, 1.0]))
    'reversed along axis 0'
    """
    return next(_relations(*(np.asarray(array, np.float64) for array in (truth, other))), "")


def _relations(truth: np.ndarray, other: np.ndarray) -> Iterator[str]:
    if not np.isfinite(other).all():
        yield f"{np.sum(~np.isfinite(other))} of {other.size} numbers are NaN or infinite"
        return
    if not np.isfinite(truth).all():
        yield f"{np.sum(~np.isfinite(truth))} of {truth.size} numbers are NaN or infinite in torch"
        return
    if not truth.size or not other.size:
        return
    if not other.any():
        yield "all zero"
        return
    if truth.shape == other.shape:
        yield from _scaled(truth, other)
        yield from _moved(truth, other)
    if truth.size == other.size:
        yield from _reordered(truth, other)
    if truth.shape != other.shape:
        yield f"shape {other.shape} in place of {truth.shape}"
        return
    yield from _rounded(truth, other)
    yield from _partly(truth, other)


def _scaled(truth: np.ndarray, other: np.ndarray) -> Iterator[str]:
    norm = float((truth * truth).sum())
    factor = float((truth * other).sum()) / norm if norm else 0.0
    if factor and agree(factor * truth, other):
        yield "the sign is the other" if agree(-truth, other) else _factor(factor, truth.shape)
    offset = float((other - truth).mean())
    if agree(truth + offset, other):
        yield f"a constant {offset:.6g} is added"
    for axis in range(truth.ndim if truth.size > max(truth.shape) else 0):
        rest = tuple(i for i in range(truth.ndim) if i != axis)
        if truth.shape[axis] == 1:
            continue
        added = (other - truth).mean(rest, keepdims=True)
        if agree(truth + added, other):
            yield f"one number for each index of axis {axis} is added"
        squares = (truth * truth).sum(rest, keepdims=True)
        factors = (truth * other).sum(rest, keepdims=True) / np.where(squares, squares, 1)
        if agree(truth * factors, other) and not np.isin(factors.round(9), (0, 1)).all():
            yield f"scaled by one factor for each index of axis {axis}"


def _factor(factor: float, shape: tuple[int, ...]) -> str:
    """A factor and, where it is one, the name that it goes by."""
    known = [(float(size), f"the size of axis {axis}") for axis, size in enumerate(shape)]
    for n in range(3, 65):
        known += [(n / (n - 1), f"n/(n-1) of n = {n}")]
        if math.isqrt(n) ** 2 != n:
            known += [(n**0.5, f"sqrt({n})")]
    known += [(1 / value, f"1 over {name}") for value, name in known if value]
    name = next((name for value, name in known if math.isclose(factor, value, rel_tol=1e-9)), "")
    size = "larger" if abs(factor) > 1 else "smaller"
    return f"{size} by the factor {factor:.9g}" + (f", {name}" if name else "")


def _moved(truth: np.ndarray, other: np.ndarray) -> Iterator[str]:
    for axis in range(truth.ndim):
        if truth.shape[axis] == 1:
            continue
        if agree(np.flip(truth, axis), other):
            yield f"reversed along axis {axis}"
        for by in (1, -1):
            rolled = np.roll(truth, by, axis)
            inner = [slice(None)] * truth.ndim
            inner[axis] = slice(1, None) if by == 1 else slice(None, -1)
            if truth.shape[axis] > 2 and agree(rolled[tuple(inner)], other[tuple(inner)]):
                yield f"shifted by {by:+d} along axis {axis}"


def _reordered(truth: np.ndarray, other: np.ndarray) -> Iterator[str]:
    for order in itertools.permutations(range(truth.ndim)) if truth.ndim < 6 else ():
        if list(order) != sorted(order) and agree(truth.transpose(order), other):
            yield f"axes in the order {order}"
    if agree(np.sort(truth, None), np.sort(other, None)):
        yield "the same numbers in another order"


def _rounded(truth: np.ndarray, other: np.ndarray) -> Iterator[str]:
    error = relative_error(truth, other)
    for name, unit in ROUNDING.items():
        if error < 16 * unit and (other.astype(np.dtype(name)).astype(np.float64) == other).all():
            yield f"rounded to {name}"


def _partly(truth: np.ndarray, other: np.ndarray) -> Iterator[str]:
    scale = np.max(np.abs(truth)) or 1.0
    wrong = np.abs(truth - other) > FLOAT64 * scale
    if wrong.sum() and not other[wrong].any():
        yield f"{wrong.sum()} of {wrong.size} numbers are zero"
    elif wrong.sum() and not truth[wrong].any():
        yield f"{wrong.sum()} of {wrong.size} numbers should be zero"
    elif wrong.mean() < 0.5:
        yield f"{wrong.sum()} of {wrong.size} numbers differ, the others agree"
