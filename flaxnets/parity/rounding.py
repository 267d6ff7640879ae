"""How far results in low precision are from the float64 truth, on both sides."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from flaxnets.parity import tolerances
from flaxnets.parity.compare import compare
from flaxnets.parity.pair import Pair

DRAWS = 16
NOISE = 1e-12  # what is this much smaller than the largest of its kind is a rounded zero


def rounding(pair: Pair, dtype: str, unit: float) -> tuple[float, float, str]:
    """How near outputs and gradients are to the truth, judged by torch's own distance.

    Errors and magnitudes are medians over several draws of weights and inputs: one draw is
    noise, and in some a gradient is almost zero or a ReLU's input rounds to the other side.

    Args:
        pair: of models.
        dtype: that both compute in.
        unit: in the last place of a number around 1.

    Returns:
        The error, its bound, and the array that comes nearest to it or is farthest beyond.
    """
    theirs: dict[str, list[Gap]] = {}
    mine: dict[str, list[Gap]] = {}
    for seed in range(DRAWS):
        drawn = pair.redrawn(seed).rounded(dtype)
        truth, reference = drawn.torch_result(), drawn.torch_result(dtype)
        with jax.enable_x64(False):
            ours = drawn.flax_result(reference, dtype)
        for kind in ("outputs", "gradients"):
            exact, torchs, flaxs = (getattr(side, kind) for side in (truth, reference, ours))
            if np.isinf((form := compare(torchs, flaxs)).error):
                return np.inf, tolerances.FLOOR[dtype] * unit, form.worst
            largest = max((np.max(np.abs(x), initial=0.0) for x in exact.values()), default=0.0)
            for name, value in without_noise(exact).items():
                scale = np.max(np.abs(value), initial=0.0) or largest
                theirs.setdefault(name, []).append(_gap(value, torchs[name], scale))
                mine.setdefault(name, []).append(_gap(value, flaxs[name], scale))
    worst = (0.0, tolerances.FLOOR[dtype] * unit, "nothing")
    for name, gaps in mine.items():
        long_sum = name in pair.weights and pair.weights[name].ndim < 2
        floor = (tolerances.LONG_SUM if long_sum else tolerances.FLOOR[dtype]) * unit
        bound = max(tolerances.RATIO[dtype] * _typical(theirs[name]), floor)
        found = (_typical(gaps), bound, name)
        if worst[2] == "nothing" or found[0] / bound > worst[0] / worst[1]:
            worst = found
    return worst


def without_noise(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of one kind, with zeros for those that are zero but for rounding.

    The gradients of a bias in front of BatchNorm and of the keys' bias in attention are such.
    """
    sizes = {name: np.max(np.abs(array), initial=0.0) for name, array in arrays.items()}
    noise = NOISE * max(sizes.values(), default=0.0)
    return {n: array if sizes[n] > noise else np.zeros_like(array) for n, array in arrays.items()}


class Gap(NamedTuple):
    """The largest difference from the truth, and the magnitude to judge it by.

    That is the truth's own largest magnitude, or where the truth is zero that of its kind.
    """

    error: float
    scale: float


def _gap(truth: np.ndarray, other: np.ndarray, scale: float) -> Gap:
    return Gap(float(np.max(np.abs(truth - other.astype(np.float64)), initial=0.0)), float(scale))


def _typical(gaps: list[Gap]) -> float:
    """The error over several draws, relative to the magnitude over these draws."""
    error, scale = np.median(gaps, axis=0)
    return float(error / scale) if scale else float(np.inf if error else 0.0)
