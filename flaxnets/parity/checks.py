"""The checks that a pair has to pass; each gives its error, its bound and where it is worst."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from flaxnets import bridge
from flaxnets.bridge.convert import entries
from flaxnets.parity import tolerances
from flaxnets.parity.compare import compare, compared, errors
from flaxnets.parity.pair import Pair, named
from flaxnets.parity.rounding import rounding, without_noise
from flaxnets.parity.row import Compared
from flaxnets.parity.trajectory import (
    METHODS,
    Task,
    arrays,
    compare_steps,
    flax_steps,
    several,
    torch_steps,
    training_step,
)
from flaxnets.training import Phase, TrainStep, optimizers
from torch_ref.arrays import tensors

STEPS = 3  # of training, where steps are compared with each other
MOST_DRAWS = 64  # fresh models whose initial weights are pooled
ENOUGH = 16384  # initial numbers of one parameter
FILLING = 2**0.5  # what a weight is multiplied by to fill all bits of its dtype


class Finding(NamedTuple):
    """What a check found: it passes if the error is within the bound.

    Attributes:
        error: the largest.
        bound: that it is judged by.
        worst: the array that has it.
        arrays: the worst few, for the report.
        layers: the error of every submodule's output in data-flow order.
    """

    error: float
    bound: float
    worst: str
    arrays: tuple[Compared, ...] = ()
    layers: tuple[tuple[str, float], ...] = ()


class Subject(NamedTuple):
    """What is checked: a pair, what it is trained on and the methods it is trained with."""

    pair: Pair
    task: Task
    methods: Sequence[str]

    def step(self, dtype: str, optimizer: optax.GradientTransformation) -> TrainStep:
        """The training step of the Flax model."""
        phases = [
            Phase(objective, optimizer, part) for part, objective in self.task.objectives.items()
        ]
        return TrainStep(self.pair.flax_model(dtype), *phases)


def forward(subject: Subject) -> Finding:
    """Outputs in evaluation mode agree in float64."""
    truth = subject.pair.torch_result()
    other = subject.pair.flax_result(truth)
    return _judged(truth.outputs, other.outputs)


def forward_train(subject: Subject) -> Finding:
    """Outputs in training mode agree in float64: batch statistics, and the same random numbers."""
    ours = subject.pair.flax_trained(1)
    truth = subject.pair.torch_trained(1, ours.draws)
    other = subject.pair.aligned(ours.outputs, truth.outputs)
    return _judged(truth.outputs, other)


def buffers(subject: Subject) -> Finding:
    """Running statistics agree in float64 after several passes in training mode."""
    ours = subject.pair.flax_trained(STEPS)
    truth = subject.pair.torch_trained(STEPS, ours.draws)
    if not truth.buffers and not ours.buffers:
        return Finding(0.0, tolerances.FLOAT64, "no buffers")
    return _judged(truth.buffers, ours.buffers)


def intermediates(subject: Subject) -> Finding:
    """The output of every submodule agrees in float64.

    Submodules without weights that only one side has (an activation that the other calls as a
    function) are passed over; one with weights must be there, and be called as often, on both.
    """
    truth, other = subject.pair.torch_intermediates(), subject.pair.flax_intermediates()
    weighty = {name.rpartition(".")[0] for name in subject.pair.weights}
    both = {
        name
        for name in truth.keys() | other.keys()
        if (name in truth and name in other) or name.split("#")[0] in weighty
    }
    truth = {name: value for name, value in truth.items() if name in both}
    other = {name: value for name, value in other.items() if name in both}
    other = subject.pair.aligned(other, truth)
    if not both and weighty == {""}:  # one bare layer: the output is all there is
        return forward(subject)
    layers = tuple(errors({k: truth[k] for k in truth if k in other}, other).items())
    return _judged(truth, other)._replace(layers=layers)


def gradients(subject: Subject) -> Finding:
    """The gradient of every parameter and real input agrees in float64."""
    truth = subject.pair.torch_result()
    other = subject.pair.flax_result(truth)
    if not truth.gradients and not other.gradients:
        return Finding(0.0, tolerances.FLOAT64, "no parameter and no real input")
    return _judged(truth.gradients, other.gradients, tolerances.SMALLEST)


def round_trip(subject: Subject) -> Finding:
    """Weights come back bit by bit: Flax, torch, Flax and torch, Flax, torch, in every dtype.

    Both start from numbers that fill the dtype, set without the bridge.
    """
    differ = []
    for dtype in ("float32", "float64", "float16", "bfloat16"):
        pair = subject.pair
        flax_model, torch_model = _filled(pair.flax_model(dtype), pair.torch_model(dtype))
        start, after = bridge.state_dict(flax_model), pair.torch_model(dtype)
        let_go = start.keys() - _leaves(flax_model).keys()  # what only torch holds
        after.load_state_dict(tensors(start))
        flax_after = pair.flax_model(dtype)
        bridge.load_state_dict(flax_after, {k: np.zeros_like(v) for k, v in start.items()})
        bridge.load_state_dict(flax_after, after.state_dict())
        between = pair.flax_model(dtype)
        bridge.load_state_dict(between, torch_model.state_dict())
        after.load_state_dict(
            {name: torch.zeros_like(value) for name, value in after.state_dict().items()}
        )
        after.load_state_dict(tensors(bridge.state_dict(between)))
        for there, back in (
            (_leaves(flax_model), _leaves(flax_after)),
            (_torch_bits(torch_model), _torch_bits(after)),
        ):
            assert there.keys() == back.keys()
            differ += [
                f"{name} in {dtype}" for name in there.keys() - let_go if there[name] != back[name]
            ]
    differ = list(dict.fromkeys(differ))
    return Finding(float(len(differ)), tolerances.EXACT, ", ".join(differ) or "all bits")


def _filled(
    flax_model: nnx.Module, torch_model: torch.nn.Module
) -> tuple[nnx.Module, torch.nn.Module]:
    """Both models with weights whose last bits are set: a pair's fit into float32."""
    for entry in entries(flax_model):
        value = np.asarray(entry.variable[...])
        if jnp.issubdtype(value.dtype, jnp.floating):
            entry.variable.set_value(jax.device_put(value * value.dtype.type(FILLING)))
    with torch.no_grad():
        for tensor in torch_model.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(FILLING)
    return flax_model, torch_model


def initialisation(subject: Subject) -> Finding:
    """Every parameter starts from the same distribution on both sides.

    The distance is Kolmogorov's and Smirnov's; where the pair is given as two functions of a
    seed, many fresh models are pooled.
    """
    pair = subject.pair
    sizes = [value.size for value in pair.weights.values()]
    draws = min(MOST_DRAWS, -(-ENOUGH // max(min(sizes, default=1), 1))) if pair.repeatable else 1
    flax = _pooled([bridge.state_dict(pair.create_flax(seed)) for seed in range(draws)])
    ours = _pooled(
        [
            {name: value.detach().numpy() for name, value in model.state_dict().items()}
            for model in map(pair.create_torch, range(draws))
        ]
    )
    if flax.keys() != ours.keys():
        return Finding(np.inf, 0.0, f"names differ: {sorted(flax.keys() ^ ours.keys())[0]}")
    worst = Finding(0.0, 1.0, "no weights")
    for name, values in flax.items():
        bound = tolerances.KOLMOGOROV_SMIRNOV * (1 / values.size + 1 / ours[name].size) ** 0.5
        found = Finding(_distance(values, ours[name]), bound, name)
        if worst.worst == "no weights" or found.error / bound > worst.error / worst.bound:
            worst = found
    return worst


def compiled(subject: Subject) -> Finding:
    """Outputs op by op and jitted agree, and so do single training steps and several in a loop.

    LLVM's optimisation is left out, which takes longest: `float32` and `bfloat16` judge it.
    """
    pair = subject.pair
    with jax.disable_jit():
        outputs = named(pair.flax_model()(*pair.flax_inputs()))
    theirs = pair.torch_result()
    eager = pair.aligned({n: np.asarray(x) for n, x in outputs.items()}, theirs.outputs)
    found = [compare(eager, pair.flax_result(theirs).outputs)]

    step = training_step(pair, subject.task, METHODS["adam"])
    single, one_by_one = pair.compiled("single step", step.pure), step.state
    for number in range(STEPS):
        one_by_one, _ = single(one_by_one, arrays(subject.task.batches, number))
    looped, _, _ = several(pair, subject.task, step, "adam")(step.state, STEPS)
    truth = _updates(step.state, one_by_one)
    found.append(compare(truth, _updates(step.state, looped), tolerances.SMALLEST))
    error, worst = max(found)
    return Finding(error, tolerances.FLOAT64, worst)


def lowering(subject: Subject) -> Finding:
    """The training step lowers for cpu, cuda and tpu, donates its state, calls no host."""
    batch = _batch(subject.task.batches[0], "float32")
    with jax.enable_x64(False):
        step = subject.step("float32", optimizers.adam())
        called = re.search(r"\b\w*callback\b", step.jaxpr(batch))
        if called:  # it would not even lower for several platforms
            return Finding(1.0, tolerances.EXACT, f"the step calls the host by {called.group()}")
        program = step.lower(batch, ("cpu", "cuda", "tpu")).mlir_module()
    findings = []
    leaves = len(jax.tree.leaves(step.state))
    donated = program.count("tf.aliasing_output") + program.count("jax.buffer_donor")
    if donated != leaves:
        findings.append(f"{donated} of {leaves} leaves of the state are donated")
    if re.search(r"tensor<(\d+x)*f64>", program):
        findings.append("the float32 step computes in float64")
    return Finding(
        float(len(findings)), tolerances.EXACT, "; ".join(findings) or f"{leaves} leaves"
    )


def float32(subject: Subject) -> Finding:
    """Outputs and gradients in float32 are about as near to the float64 truth as torch's."""
    return Finding(*rounding(subject.pair, "float32", 2.0**-23))


def bfloat16(subject: Subject) -> Finding:
    """The same in bfloat16, weights and inputs rounded beforehand."""
    with jax.numpy_dtype_promotion("standard"):  # JAX's lowering of mixed products promotes
        return Finding(*rounding(subject.pair, "bfloat16", 2.0**-7))


def trajectory(subject: Subject) -> Finding:
    """Steps of training agree in float64: loss, gradients, moments, updates and statistics."""
    worst = Finding(0.0, tolerances.FLOAT64, "nothing")
    for name in subject.methods:
        steps = zip(
            torch_steps(subject.pair, subject.task, name),
            flax_steps(subject.pair, subject.task, name),
            strict=True,
        )
        for number, (truth, other) in enumerate(steps, 1):
            found = compare_steps(truth, other)
            if worst.worst == "nothing" or found.error > worst.error:
                where = f"{found.worst} in step {number} of {name}"
                worst = Finding(found.error, tolerances.FLOAT64, where)
            if found.error > tolerances.FLOAT64:
                return worst
    return worst


CHECKS: dict[str, Callable[[Subject], Finding]] = {
    check.__name__: check
    for check in (
        forward,
        forward_train,
        intermediates,
        gradients,
        buffers,
        trajectory,
        round_trip,
        initialisation,
        compiled,
        lowering,
        float32,
        bfloat16,
    )
}
"""Every check by its name, in the order in which they run."""


def _judged(
    truth: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], floor: float = 0.0
) -> Finding:
    """The finding of two collections of float64 arrays."""
    error, worst = compare(truth, other, floor)
    return Finding(error, tolerances.FLOAT64, worst, compared(truth, other))


def _batch(batch: Any, dtype: str) -> Any:
    def cast(x):
        x = np.asarray(x)
        return jax.device_put(x.astype(dtype if x.dtype.kind == "f" else np.int32))

    return jax.tree.map(cast, batch)


def _updates(before: Any, after: Any) -> dict[str, np.ndarray]:
    """How far the parameters and buffers went, so that an error is judged against the update."""
    params, buffers = (
        [np.asarray(new) - np.asarray(old) for new, old in zip(news, olds, strict=True)]
        for news, olds in ((after.params, before.params), (after.rest, before.rest))
    )
    found = {f"update of parameter {index}": update for index, update in enumerate(params)}
    moved = {f"update of buffer {index}": update for index, update in enumerate(buffers)}
    return without_noise(found) | moved


def _leaves(model: nnx.Module) -> dict[str, bytes]:
    return {entry.name: np.asarray(entry.variable[...]).tobytes() for entry in entries(model)}


def _torch_bits(model: torch.nn.Module) -> dict[str, bytes]:
    return {
        name: value.contiguous().view(torch.uint8).numpy().tobytes()
        if value.ndim
        else value.reshape(1).view(torch.uint8).numpy().tobytes()
        for name, value in model.state_dict().items()
    }


def _distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Kolmogorov's and Smirnov's distance of two samples; two constants are equal or not."""
    if ours.dtype.kind != "f" or (ours.size > 1 and np.ptp(ours) == np.ptp(theirs) == 0):
        return 0.0 if ours[0] == theirs[0] else np.inf
    points = np.concatenate([ours, theirs])
    shares = [
        np.searchsorted(np.sort(sample), points, side="right") / sample.size
        for sample in (ours, theirs)
    ]
    return float(np.max(np.abs(shares[0] - shares[1])))


def _pooled(states: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """About `ENOUGH` numbers of every weight, from as many models as that takes."""
    return {
        name: np.concatenate([state[name].ravel()[:ENOUGH] for state in states])[:ENOUGH]
        for name in states[0]
    }
