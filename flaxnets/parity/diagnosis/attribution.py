"""Whose fault it is: ours, XLA's or torch's, by comparing jitted, op by op and float64."""

import math
from collections.abc import Callable

import jax
import jax.extend.core
import numpy as np

from flaxnets.parity import tolerances
from flaxnets.parity.compare import relative_error
from flaxnets.parity.diagnosis import local
from flaxnets.parity.diagnosis.observations import ROUNDING, agree
from flaxnets.parity.diagnosis.trace import Arrays, Call, Fault, flax_run, gap, inputs, torch_run
from flaxnets.parity.pair import Pair


def of_compiled(pair: Pair, worst: str) -> Fault:
    """The first layer that gives other numbers when jitted, and whether XLA or our code does it."""
    for training in (False, True):
        theirs, ours = torch_run(pair, training), flax_run(pair, training)
        for key, call in ours.calls.items():
            if any(not isinstance(value, int | bool | jax.Array) for value in call.kwargs.values()):
                continue  # called with a source of random numbers
            try:
                jitted, traced, eager = _three_ways(call)
            except Exception:  # a call that cannot be repeated alone
                continue
            if _same(eager, jitted):
                continue
            whose = (
                "XLA's: compiled it differs from the same program run op by op"
                if _same(eager, traced)
                else "ours: the code does something else when it is traced"
            )
            right = [
                name
                for name, found in (("eager", eager), ("jitted", jitted))
                if key in theirs.calls
                and all(
                    gap(pair, array, found.get(output, np.empty(0))) <= tolerances.FLOAT64
                    for output, array in theirs.calls[key].outputs.items()
                )
            ]
            place = call.name or type(call.module).__name__
            return Fault(place, whose + "".join(f"; {name} agrees with torch" for name in right))
    return Fault(worst, "ours: every layer alone is the same eager and jitted, the step is not")


def _three_ways(call: Call) -> tuple[Arrays, Arrays, Arrays]:
    """The outputs of a call compiled, traced and then run op by op, and eager."""
    run, given = local.function(call)
    jitted = _arrays(jax.jit(run)(*given))
    closed, shape = jax.make_jaxpr(run, return_shape=True)(*given)
    with jax.disable_jit():
        flat = jax.extend.core.jaxpr_as_fun(closed)(*jax.tree.leaves(given))
        eager = _arrays(run(*given))
    return jitted, _arrays(jax.tree.unflatten(jax.tree.structure(shape), flat)), eager


def _arrays(outputs: dict) -> Arrays:
    return {name: np.asarray(array).astype(np.float64) for name, array in outputs.items()}


def _same(truth: Arrays, other: Arrays) -> bool:
    return all(agree(array, other[name]) for name, array in truth.items())


def of_lowering(pair: Pair, worst: str) -> Fault:
    """The first layer whose program has in it what the check found."""
    sign = {"calls the host": "callback", "in float64": "f64"}
    wanted = next((text for found, text in sign.items() if found in worst), "")
    if not wanted:
        return Fault("state of the step", worst)
    for call in flax_run(pair).calls.values():
        run, given = local.function(call, "float32")
        with jax.enable_x64(wanted == "f64"):
            program = str(jax.make_jaxpr(run)(*given))
        if wanted in program:
            return Fault(call.name or type(call.module).__name__, f"ours: {worst}")
    return Fault(worst, "ours: outside every layer, in the objective or the optimizer")


def of_rounding(dtype: str) -> Callable[[Pair, str], Fault]:
    """The first layer that alone rounds more than torch's, and whose doing it is."""

    def explain(pair: Pair, worst: str) -> Fault:
        theirs, ours = torch_run(pair), flax_run(pair)
        for key, truth in theirs.calls.items():
            if key not in ours.calls:
                continue
            other = ours.calls[key]
            place = truth.name or type(truth.module).__name__
            shared = [name for name in truth.outputs if name in other.outputs]
            for name in shared:
                if gap(pair, truth.outputs[name], other.outputs[name]) > tolerances.FLOAT64:
                    return Fault(place, "ours: it differs in float64 too")
            if cause := _rounding(pair, truth, other, dtype):
                return Fault(place, cause)
        return Fault(worst, "ours: no layer alone rounds more than torch's, together they do")

    return explain


def _rounding(pair: Pair, truth: Call, other: Call, dtype: str) -> str:
    """Whose the rounding of a layer is, "" where it is about torch's."""
    given = [np.asarray(array) for array, _ in inputs(truth, other)]
    if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in given):
        return ""
    run, arguments = local.function(other, dtype)
    with jax.disable_jit():
        eager = _arrays(run(*arguments))
    jitted = _arrays(jax.jit(run)(*arguments))
    reference = local.in_torch(truth, dtype)
    for name, exact in truth.outputs.items():
        theirs = relative_error(exact, reference[name])
        mine = {
            side: gap(pair, exact, found[name])
            for side, found in (("eager", eager), ("jitted", jitted))
        }
        floor = 2 * ROUNDING[dtype] * tolerances.FLOOR[dtype]
        bound = max(tolerances.RATIO[dtype] * theirs, floor)
        if mine["jitted"] > bound >= mine["eager"]:
            return f"XLA's: {_precision(mine['jitted'])} only when compiled"
        if mine["eager"] > bound:
            return f"ours: {_precision(mine['eager'])}, eager and jitted"
        if theirs > 64 * floor:
            return f"torch's: {_precision(theirs)}"
    return ""


def _precision(error: float) -> str:
    """The kind of rounding that an error, typically a quarter of its unit, looks like."""
    if error > 4 * ROUNDING["bfloat16"]:
        return f"error {error:.1e}, digits are lost"
    name = min(ROUNDING, key=lambda kind: abs(math.log2(4 * error / ROUNDING[kind])))
    return f"error {error:.1e}, as of {name}"


def distribution(sample: np.ndarray) -> str:
    """What a sample of numbers looks like.

    >>> distribution(np.zeros(3)), distribution(np.linspace(-1, 1, 1001))
    ('all 0', 'uniform from -1 to 1')
    """
    if np.ptp(sample) == 0:
        return f"all {sample[0] + 0:g}"
    mean, std = sample.mean(), sample.std()
    kurtosis = ((sample - mean) ** 4).mean() / std**4  # 1.8 of a uniform, 3 of a normal one
    if kurtosis < 2.1:
        return f"uniform from {sample.min():.3g} to {sample.max():.3g}"
    kind = "normal" if kurtosis > 2.6 else "truncated normal"
    return f"{kind} of mean {mean:.3g} and standard deviation {std:.3g}"
