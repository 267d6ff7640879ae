"""Where two models part first, and why: what stands beside a check that failed."""

import copy
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from flaxnets import bridge
from flaxnets.parity.compare import compare, relative_error
from flaxnets.parity.diagnosis import attribution, hypotheses, local
from flaxnets.parity.diagnosis.observations import agree, relation
from flaxnets.parity.diagnosis.trace import (
    Arrays,
    Call,
    Fault,
    Run,
    align,
    flax_run,
    gap,
    inputs,
    one_line,
    torch_run,
)
from flaxnets.parity.pair import Pair, named
from flaxnets.parity.tolerances import FLOAT64, SMALLEST
from flaxnets.parity.trajectory import FLOORED, Task, counting, flax_steps, torch_steps


def explain(check: str, pair: Pair, worst: str, task: Task | None = None) -> Fault:
    """The place and likely cause of a check's failure; never raises.

    Args:
        check: its name.
        pair: of models.
        worst: what the check itself found.
        task: that the pair was trained on.
    """
    try:
        if check == "trajectory" and task is not None:
            found = of_trajectory(pair, worst, task)
        else:
            found = EXPLANATIONS.get(check, _unknown)(pair, worst)
        return found if found.place else Fault(worst, found.cause)
    except Exception as error:  # a diagnosis must not hide the finding that it is about
        return Fault(worst, f"not diagnosed ({one_line(error)})")


def _unknown(pair: Pair, worst: str) -> Fault:
    return Fault()


def of_forward(pair: Pair, worst: str, training: bool = False) -> Fault:
    """The first output, in data-flow order, that differs although its inputs agree."""
    return divergence(pair, torch_run(pair, training), flax_run(pair, training), training)


def of_training(pair: Pair, worst: str) -> Fault:
    """As `of_forward`, in training mode."""
    found = of_forward(pair, worst, training=True)
    if not found.cause and not of_forward(pair, worst).place:
        return Fault(found.place, "evaluation agrees: other random numbers, or another use of them")
    return found


def divergence(pair: Pair, theirs: Run, ours: Run, training: bool = False) -> Fault:
    """The first difference between two runs."""
    past: list[str] = []
    for key, truth in theirs.calls.items():
        if key not in ours.calls:
            if ours.error and not _skippable(truth.module):
                return Fault(truth.name or _whole(pair), f"Flax raises {ours.error}")
            past.append(key)
            continue
        other = ours.calls[key]
        if truth.name:
            for given, taken in inputs(truth, other):
                if gap(pair, given, taken) > FLOAT64:
                    return _between(pair, theirs, ours, past, truth.name, given, taken)
        for name, array in truth.outputs.items():
            if gap(pair, array, other.outputs.get(name, np.empty(0))) <= FLOAT64:
                continue
            if truth.name or not list(truth.module.children()):
                place = truth.name or type(truth.module).__name__
                return Fault(place, cause(pair, truth, other, training))
            taken = other.outputs.get(name, np.empty(0))
            found = _between(pair, theirs, ours, past, "", array, taken)
            return found._replace(place=name if found.place == "input of " else found.place)
        past.append(key)
    if theirs.error or ours.error:
        side, error = ("torch", theirs.error) if theirs.error else ("Flax", ours.error)
        return Fault(theirs.inside or _whole(pair), f"{side} raises {error}")
    return Fault()


def _skippable(module: torch.nn.Module) -> bool:
    """Whether the other side may have a function in its place."""
    return not list(module.parameters())


def _whole(pair: Pair) -> str:
    return type(pair.torch_model()).__name__


def cause(pair: Pair, truth: Call, other: Call, training: bool = False) -> str:
    """Why a layer's output differs: the first hypothesis that gives what the Flax layer gave."""
    ours = {
        name: align(pair, array, other.outputs[name])
        for name, array in truth.outputs.items()
        if name in other.outputs
    }
    if not ours:
        return f"outputs {sorted(other.outputs)} in place of {sorted(truth.outputs)}"
    fresh = pair.torch_model().train(training)
    layer = dict(fresh.named_modules())[truth.name]
    tried = hypotheses.of(layer)
    if truth.args and isinstance(truth.args[0], PackedSequence):
        padded = torch.tensor(np.asarray(other.args[0]))
        tried = [hypotheses.reading_padding(padded), *tried]
    for hypothesis in tried:
        if _gives(hypothesis, layer, truth, ours):
            return hypothesis.text.format(m=layer)
    if training and "Dropout" in type(layer).__name__:
        (given, _), *_ = inputs(truth, other)
        return _dropped(layer, given, *next(iter(truth.outputs.items()))[1:], *ours.values())
    parts = [(truth.outputs[name], array) for name, array in ours.items()]
    return next((relation(*part) for part in parts if not agree(*part)), "")


def _gives(
    hypothesis: hypotheses.Hypothesis,
    layer: torch.nn.Module,
    truth: Call,
    ours: Mapping[str, np.ndarray],
) -> bool:
    try:
        with torch.no_grad():
            output = hypothesis.output(copy.deepcopy(layer), *truth.args, **truth.kwargs)
    except Exception:  # one that does not fit this layer or these inputs
        return False
    found = {name: array.numpy() for name, array in named(output).items()}
    return all(
        name in found
        and np.array_equal(np.isnan(found[name]), np.isnan(array))
        and agree(np.nan_to_num(found[name]), np.nan_to_num(array))
        for name, array in ours.items()
    )


def _dropped(layer: Any, given: np.ndarray, truth: np.ndarray, other: np.ndarray) -> str:
    """How one dropout differs from another: share, scale, whole channels, or the draw."""
    live = given != 0
    share = float((other[live] == 0).mean())
    kept = live & (other != 0)
    if not kept.any():
        return "everything is dropped"
    scales = other[kept] / given[kept]
    if share == 0:
        again = (given == 0).any() and abs(scales.mean() - 1 / (1 - layer.p)) <= FLOAT64
        return "another mask: one that was used before" if again else "nothing is dropped"
    if np.ptp(scales) > FLOAT64:
        return "kept values are not scaled by one number"
    scale, right = float(scales.mean()), 1 / (1 - layer.p)
    same = ((truth != 0) == (other != 0)).all()
    if abs(scale - right) > FLOAT64:
        mask = "the same mask" if same else f"a share of {share:.2g} dropped"
        return f"scaled by {scale:.6g}, not 1/(1 - p) = {right:.6g}, with {mask}"
    for axis in range(other.ndim):
        if other.shape[axis] > 1 and np.ptp((other == 0).astype(int), axis=axis).max() == 0:
            return f"one mask for all of axis {axis}"
    return f"another mask: other random numbers, with a share of {share:.2g} dropped"


def _between(
    pair: Pair,
    theirs: Run,
    ours: Run,
    past: list[str],
    name: str,
    truth: np.ndarray,
    other: np.ndarray,
) -> Fault:
    """A difference that arises between two submodules: one left out, or a function."""
    other = align(pair, truth, other)
    lacking = [key for key in past if key not in ours.calls]
    for key in reversed(past):
        for array in theirs.calls[key].outputs.values():
            if agree(array, other):
                after = [k for k in past[past.index(key) + 1 :] if k in lacking]
                if after:
                    missing = theirs.calls[after[0]]
                    kind = type(missing.module).__name__
                    return Fault(missing.name, f"missing on the Flax side: {kind} is left out")
    for key in lacking:  # a layer that Flax has as a function
        call = theirs.calls[key]
        layer = dict(pair.torch_model().named_modules())[call.name]
        for hypothesis in hypotheses.of(layer):
            if _gives(hypothesis, layer, call, {"output": other}):
                return Fault(call.name, hypothesis.text.format(m=layer))
    for call in ours.calls.values():
        if call.name not in {c.name for c in theirs.calls.values()}:
            for array in call.outputs.values():
                if gap(pair, other, array) <= FLOAT64 and not agree(other, truth):
                    kind = type(call.module).__name__
                    return Fault(call.name, f"only on the Flax side: {kind} is called too")
    for key in reversed(past):  # a function that both have between two layers
        for array in theirs.calls[key].outputs.values():
            if array.shape == other.shape and array.dtype.kind == "f":
                text = _function(torch.tensor(array), truth, other)
                if text:
                    return Fault(f"input of {name}", f"{text} of {theirs.calls[key].name}")
    return Fault(f"input of {name}", relation(truth, other))


def _function(before: torch.Tensor, truth: np.ndarray, other: np.ndarray) -> str:
    """Which functions of an earlier output the two sides took."""
    results = {name: f(before).numpy() for name, f in hypotheses.FUNCTIONS.items()}
    taken = [name for name, result in results.items() if agree(result, other)]
    right = [name for name, result in results.items() if agree(result, truth)]
    if not taken:
        return ""
    return f"{taken[0]} in place of {right[0]}" if right else taken[0]


def of_gradients(pair: Pair, worst: str) -> Fault:
    """A layer whose own gradient differs, else the first wrong one from the loss backwards."""
    theirs, ours = torch_run(pair), flax_run(pair)
    if (found := divergence(pair, theirs, ours)).place:
        return found
    keys = [key for key in theirs.calls if key in ours.calls]
    leaves = [key for key in keys if not list(theirs.calls[key].module.children())]
    for key in reversed(leaves):
        truth, other = theirs.calls[key], ours.calls[key]
        try:
            right, wrong = local.gradients(pair, truth, other)
        except Exception:  # a call that cannot be repeated alone is judged with the others
            continue
        for name, array in right.items():
            if name in wrong and not agree(array, wrong[name]):
                weight = not name.startswith("input")
                place = ".".join(filter(None, (truth.name, name if weight else "")))
                subject = "" if weight else f"gradient of its {name} "
                return Fault(
                    place or type(truth.module).__name__,
                    (subject or "gradient ") + _gradient(array, wrong[name], truth),
                )
    reference = pair.torch_result()
    found_by_flax = pair.flax_result(reference).gradients
    largest = max(np.max(np.abs(array), initial=0.0) for array in reference.gradients.values())
    for name in reversed(_ordered(theirs, reference.gradients)):
        array, taken = reference.gradients[name], found_by_flax[name]
        error = relative_error(array, taken, SMALLEST * largest)
        if error > FLOAT64:
            return Fault(name, "gradient " + (relation(array, taken) or "differs"))
    return Fault()


def _gradient(truth: np.ndarray, other: np.ndarray, call: Call) -> str:
    found = relation(truth, other) or "differs"
    if found == "all zero":
        return "is zero: stopped"
    given = next(iter(named(call.args).values()), None)
    if given is not None and tuple(given.shape) == truth.shape:
        wrong = np.abs(truth - other) > FLOAT64 * np.abs(truth).max()
        if not given.detach().numpy()[wrong].any():
            return "differs where the input is 0: another slope at the kink"
    return found


def _ordered(run: Run, names: Iterable[str]) -> list[str]:
    """Names of weights and inputs in data-flow order of their modules."""
    order = {call.name: index for index, call in enumerate(run.calls.values())}

    def place(name: str) -> int:
        return -1 if name.startswith("input ") else order.get(name.rpartition(".")[0], len(order))

    return sorted(names, key=place)


def of_buffers(pair: Pair, worst: str) -> Fault:
    """The first buffer that differs after one pass, or a layer in front of it."""
    theirs, ours = torch_run(pair, training=True), flax_run(pair, training=True)
    found = divergence(pair, theirs, ours, training=True)
    for passes in (1, 3):
        flax = pair.flax_trained(passes)
        truth = pair.torch_trained(passes, flax.draws)
        for name in _ordered(theirs, [name for name in pair.weights if name in truth.buffers]):
            right, wrong = truth.buffers[name], flax.buffers.get(name, np.empty(0))
            if not agree(right, wrong):
                if found.place and not _precedes(theirs, name, found.place):
                    return found
                return Fault(name, _buffer(pair, theirs, name, right, wrong, passes))
    return found


def _precedes(run: Run, buffer: str, place: str) -> bool:
    """Whether a buffer's module is called before the place where outputs part, or is it."""
    order = [call.name for call in run.calls.values()]
    module, place = buffer.rpartition(".")[0], place.removeprefix("input of ")
    if module not in order or place not in order:
        return False
    return order.index(module) < order.index(place)


# What a running statistic may become: of the old one, the batch's, torch's momentum, n values.
UPDATES: dict[str, Callable] = {
    "the biased variance, (n-1)/n, is stored": lambda old, new, m, n: (
        (1 - m) * old + m * new * (n - 1) / n
    ),
    "the unbiased variance, n/(n-1), is stored twice over": lambda old, new, m, n: (
        (1 - m) * old + m * new * n / (n - 1)
    ),
    "momentum the other way round: 1 - momentum of the new": lambda old, new, m, n: (
        m * old + (1 - m) * new
    ),
    "momentum 0.01 of the new (Flax's 0.99)": lambda old, new, m, n: 0.99 * old + 0.01 * new,
    "momentum 0.1 of the new (Flax's 0.9)": lambda old, new, m, n: 0.9 * old + 0.1 * new,
    "momentum 0.99 of the new": lambda old, new, m, n: 0.01 * old + 0.99 * new,
    "momentum 0.9 of the new": lambda old, new, m, n: 0.1 * old + 0.9 * new,
    "replaced by the batch's": lambda old, new, m, n: new,
    "biased and replaced by the batch's": lambda old, new, m, n: new * (n - 1) / n,
    "updated twice": lambda old, new, m, n: (1 - m) * ((1 - m) * old + m * new) + m * new,
    "biased, with momentum 0.01 of the new (Flax's 0.99)": lambda old, new, m, n: (
        0.99 * old + 0.01 * new * (n - 1) / n
    ),
    "the standard deviation is stored": lambda old, new, m, n: (1 - m) * old + m * new**0.5,
}


def _buffer(
    pair: Pair, run: Run, name: str, truth: np.ndarray, other: np.ndarray, passes: int
) -> str:
    layer, _, kind = name.rpartition(".")
    if agree(np.asarray(pair.weights[name], np.float64), np.asarray(other, np.float64)):
        return "not updated"
    calls = [call for call in run.calls.values() if call.name == layer]
    if passes == 1 and len(calls) == 1 and kind.startswith("running"):
        module = calls[0].module
        (given,) = named(calls[0].args).values()
        old, momentum = np.asarray(pair.weights[name], np.float64), module.momentum
        if momentum:
            new, count = (truth - (1 - momentum) * old) / momentum, given.numel() / given.size(1)
            for text, update in UPDATES.items():
                if agree(update(old, new, momentum, count), other):
                    return text
    return relation(truth, other)


def of_trajectory(pair: Pair, worst: str, task: Task) -> Fault:
    """The first of loss, gradient, moment, update and statistic that differs in a step."""
    where = re.search(r" in step (\d+) of (.+)$", worst)
    if where is None:
        return Fault()
    number, name = int(where[1]), where[2]
    steps = zip(torch_steps(pair, task, name), flax_steps(pair, task, name), strict=True)
    truth, other = next(itertools.islice(steps, number - 1, None))
    for kind, left, right in zip(truth._fields, truth, counting(truth, other), strict=True):
        floor = SMALLEST if kind in FLOORED else 0.0
        if not (left or right) or compare(left, right, floor).error <= FLOAT64:
            continue
        name = _first(left, right, floor)
        if kind in ("metrics", "gradients") and (found := of_training(pair, worst)).place:
            return found
        if kind == "statistics" and (found := of_buffers(pair, worst)).place == name:
            return found
        if name in left and name in right:
            how = relation(left[name], right[name])
        else:
            how = f"{'Flax' if name in left else 'torch'} has none"
        place = f"update of {name}" if kind == "updates" else name
        return Fault(place, f"{WHOSE[kind]} in step {number} of {where[2]}: {how or 'differs'}")
    return Fault()


def _first(left: Arrays, right: Arrays, floor: float) -> str:
    """The first array, as the model defines them, that differs by more than rounding."""
    largest = max((np.max(np.abs(array), initial=0.0) for array in left.values()), default=0.0)
    names = [*left, *(name for name in right if name not in left)]
    for name in names:
        if name not in left or name not in right:
            return name
        size = np.max(np.abs(left[name]), initial=0.0)
        if size >= floor * largest and not agree(left[name], right[name]):
            return name
    return compare(left, right, floor).worst


# Whose fault the first difference of a step is, where everything in front of it agrees.
WHOSE = {
    "metrics": "the objective",
    "gradients": "the gradient of the objective",
    "moments": "the optimizer's moments",
    "updates": "the optimizer's rule, its rate or clipping",
    "statistics": "the running statistics",
}


def of_round_trip(pair: Pair, worst: str) -> Fault:
    """The first weight that does not come back, and in which dtypes."""
    found = [part.partition(" in ") for part in worst.split(", ")]
    differ = {name for name, _, _ in found}
    name = next((name for name in pair.weights if name in differ), found[0][0])
    dtypes = [dtype for differing, _, dtype in found if differing == name]
    return Fault(name, f"its bits change in {', '.join(dtypes)}")


def of_initialisation(pair: Pair, worst: str) -> Fault:
    """The parameter, and what distributions its two samples look like."""
    if worst not in pair.weights:
        return Fault(worst.rpartition(" ")[2], worst)
    samples = [
        np.concatenate([np.ravel(state[worst]) for state in states])
        for states in (
            [bridge.state_dict(pair.create_flax(seed)) for seed in range(16)],
            [pair.create_torch(seed).state_dict() for seed in range(16)],
        )
    ]
    ours, theirs = (attribution.distribution(np.asarray(sample)) for sample in samples)
    return Fault(worst, f"{ours} in place of {theirs}")


EXPLANATIONS: dict[str, Callable[[Pair, str], Fault]] = {
    "forward": of_forward,
    "forward_train": of_training,
    "intermediates": of_forward,
    "gradients": of_gradients,
    "buffers": of_buffers,
    "round_trip": of_round_trip,
    "initialisation": of_initialisation,
    "compiled": attribution.of_compiled,
    "lowering": attribution.of_lowering,
    "float32": attribution.of_rounding("float32"),
    "bfloat16": attribution.of_rounding("bfloat16"),
}
