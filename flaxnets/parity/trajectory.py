"""Training side by side: every step's loss, gradients, moments, updates and statistics.

Both sides begin with the pair's weights, take the same batches and draw the same numbers, in
float64. A step of torch is the loop that its users write.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from flaxnets import bridge
from flaxnets.parity import tolerances
from flaxnets.parity.compare import Difference, compare
from flaxnets.parity.pair import Pair, named
from flaxnets.specs import Input
from flaxnets.training import Phase, TrainStep, clipping, optimizers, schedules
from flaxnets.training.objective import Objective, apply, together
from flaxnets.training.randomness import draws
from torch_ref.random import fold_in, key, replay
from torch_ref.training import loop
from torch_ref.training import optimizers as torch_optimizers
from torch_ref.training import schedules as torch_schedules
from torch_ref.training.objective import Objective as TorchObjective

STEPS = 20
BATCHES = 4  # different ones, in turn


class Task(NamedTuple):
    """What a pair is trained on.

    Attributes:
        objectives: by the part of the model that each moves, "" for all of it.
        torch_objectives: the same of the torch model.
        examples: what the inputs of a batch are, for their layout.
        batches: pairs of inputs and targets, in Flax's layout, all of the same shapes.

    >>> from flaxnets.tasks import classification
    >>> from torch_ref.tasks import classification as of_torch
    >>> examples = [Input(name="x", shape=(2, 4), axes="bf")]
    >>> flax_loss = {"": classification.objective()}
    >>> torch_loss = {"": of_torch.objective()}
    >>> batch = np.ones((2, 4)), np.array([0, 1])
    >>> len(Task(flax_loss, torch_loss, examples, [batch]).batches)
    1
    """

    objectives: Mapping[str, Objective]
    torch_objectives: Mapping[str, TorchObjective]
    examples: Sequence[Input]
    batches: Sequence[Any]


@dataclass(frozen=True)
class Method:
    """An optimizer and what goes with it, the same on both sides.

    Attributes:
        optimizer: by name, of `flaxnets.training.optimizers`.
        options: of the optimizer, as torch names them.
        clip_norm: the largest norm of all gradients together.
        clip_value: the largest magnitude of an entry.
        schedule: by name, of `flaxnets.training.schedules`.
        schedule_options: of the schedule, as torch names them.
    """

    optimizer: str = "adam"
    options: Mapping[str, Any] = field(default_factory=dict)
    clip_norm: float | None = None
    clip_value: float | None = None
    schedule: str | None = None
    schedule_options: Mapping[str, Any] = field(default_factory=dict)

    def flax(self) -> optax.GradientTransformation:
        """The optax transformation."""
        options = dict(self.options)
        lr = options.pop("lr")
        after = []
        if self.schedule == "one_cycle_lr":  # which has its own rate
            cycle = {**self.schedule_options}
            cycle.pop("cycle_momentum")
            lr = schedules.one_cycle_lr(**cycle)
        elif self.schedule == "reduce_lr_on_plateau":
            after = [schedules.reduce_lr_on_plateau(lr, **self.schedule_options)]
            lr = 1.0
        elif self.schedule:
            lr = getattr(schedules, self.schedule)(lr, **self.schedule_options)
        before = []
        if self.clip_norm is not None:
            before = [clipping.clip_grad_norm(self.clip_norm)]
        if self.clip_value is not None:
            before = [clipping.clip_grad_value(self.clip_value)]
        optimizer = optimizers.BY_NAME[self.optimizer](lr=lr, **options)
        return optax.chain(*before, optimizer, *after)

    def torch(self, parameters: Sequence[torch.nn.Parameter]) -> tuple[Any, Any]:
        """The torch optimizer and its scheduler, None where there is none."""
        optimizer = torch_optimizers.BY_NAME[self.optimizer](parameters, **self.options)
        if self.schedule is None:
            return optimizer, None
        create = torch_schedules.BY_NAME[self.schedule]
        return optimizer, create(optimizer, **self.schedule_options)


# Some gradients are zero in exact arithmetic (of a bias in front of a normalisation) and rounding
# noise here, of which an epsilon of 1e-8 would make whole steps that move the running mean; one
# of 1e-4 behind clipping does not, and shows an epsilon in the wrong place better. "adam default"
# is for networks without such parameters.
METHODS: dict[str, Method] = {
    "sgd": Method("sgd", {"lr": 0.05}),
    "sgd momentum": Method("sgd", {"lr": 0.05, "momentum": 0.9, "dampening": 0.2}),
    "sgd nesterov": Method(
        "sgd", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    ),
    "adam": Method("adam", {"lr": 1e-3, "eps": 1e-4}, clip_norm=1.0),
    "adam default": Method("adam", {"lr": 0.01}),
    "adam amsgrad": Method("adam", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.01}),
    "adamw": Method("adamw", {"lr": 0.01}),
    "rmsprop": Method("rmsprop", {"lr": 0.01}),
    "rmsprop centered": Method("rmsprop", {"lr": 0.01, "momentum": 0.5, "centered": True}),
    "adagrad": Method("adagrad", {"lr": 0.05, "lr_decay": 0.01}),
    "adadelta": Method("adadelta", {"lr": 1.0}),
    "adamax": Method("adamax", {"lr": 0.01}),
    "nadam": Method("nadam", {"lr": 0.01}),
    "radam": Method("radam", {"lr": 0.01}),
    "clipped norm": Method("sgd", {"lr": 0.1, "momentum": 0.9}, clip_norm=0.05),
    "clipped value": Method("sgd", {"lr": 0.1, "momentum": 0.9}, clip_value=0.01),
    "step": Method(
        "sgd", {"lr": 0.1}, schedule="step_lr", schedule_options={"step_size": 6, "gamma": 0.3}
    ),
    "multi step": Method(
        "adam",
        {"lr": 0.02},
        schedule="multi_step_lr",
        schedule_options={"milestones": (3, 11), "gamma": 0.5},
    ),
    "exponential": Method(
        "sgd", {"lr": 0.1}, schedule="exponential_lr", schedule_options={"gamma": 0.9}
    ),
    "cosine": Method(
        "adamw",
        {"lr": 0.02},
        schedule="cosine_annealing_lr",
        schedule_options={"T_max": 12, "eta_min": 1e-3},
    ),
    "warm-up": Method(
        "adam",
        {"lr": 0.02},
        schedule="linear_lr",
        schedule_options={"start_factor": 0.1, "total_iters": 8},
    ),
    "one cycle": Method(
        "sgd",
        {"lr": 0.01, "momentum": 0.9},
        schedule="one_cycle_lr",
        schedule_options={"max_lr": 0.1, "total_steps": STEPS + 1, "cycle_momentum": False},
    ),
    "plateau": Method(
        "sgd",
        {"lr": 0.1},
        schedule="reduce_lr_on_plateau",
        schedule_options={"factor": 0.5, "patience": 2, "threshold": 0.05},
    ),
}
"""Ways of training that `trajectory` goes through, by name."""


# What has gradients that are zero in exact arithmetic, and how one of it is called.
FLOORED = {"gradients": "gradient", "moments": "moment", "updates": "update of"}


class Step(NamedTuple):
    """What one step did, by name, in torch's layouts."""

    metrics: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    moments: dict[str, np.ndarray]
    updates: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]


def compare_steps(truth: Step, other: Step) -> Difference:
    """The worst of all that a step did; every slot of an optimizer has its own scale."""
    found = []
    for kind, left, right in zip(Step._fields, truth, counting(truth, other), strict=True):
        slots = {name.partition(" of ")[0] for name in left.keys() | right.keys()}
        for slot in slots if kind == "moments" else {""}:
            mine, theirs = (
                {name: value for name, value in side.items() if name.startswith(slot)}
                for side in (left, right)
            )
            if mine or theirs:
                floor = tolerances.SMALLEST if kind in FLOORED else 0.0
                error, worst = compare(mine, theirs, floor)
                found.append(Difference(error, f"{FLOORED.get(kind, kind[:-1])} {worst}"))
    return max(found)


def counting(truth: Step, other: Step) -> Step:
    """The second step with the updates as they count.

    An optimizer that divides by the size of a gradient makes rounding noise as large as that
    gradient is small: where it is below the share `SMALLEST` of the largest, the difference of
    the updates counts in this proportion.
    """
    if truth.updates.keys() != other.updates.keys():
        return other
    largest = max((np.max(np.abs(g), initial=0.0) for g in truth.gradients.values()), default=0.0)
    certain = {
        name.partition(" in phase ")[0]: np.abs(g) / (tolerances.SMALLEST * largest or 1.0)
        for name, g in truth.gradients.items()
    }
    updates = {}
    for name, value in other.updates.items():
        own = truth.updates[name]
        updates[name] = own + (value - own) * np.minimum(certain.get(name, 1.0), 1.0)
    return other._replace(updates=updates)


def any_task(pair: Pair) -> Task:
    """A task for any pair: the mean sine of all outputs, which no normalisation makes flat."""

    def objective(model, batch, rngs):
        outputs = named(apply(model, rngs, *together(batch[0]))).values()
        return sum(jnp.mean(jnp.sin(output)) for output in outputs), {}

    def torch_objective(model, batch):
        outputs = named(model(*together(batch[0]))).values()
        return sum(torch.mean(torch.sin(output)) for output in outputs), {}

    batches = [(pair.redrawn(seed).values, None) for seed in range(BATCHES)]
    return Task({"": objective}, {"": torch_objective}, pair.inputs, batches)


def training_step(pair: Pair, task: Task, method: Method) -> TrainStep:
    """The training step of the Flax model in float64."""
    phases = [Phase(objective, method.flax(), part) for part, objective in task.objectives.items()]
    return TrainStep(pair.flax_model(), *phases)


def several(pair: Pair, task: Task, step: TrainStep, method: str) -> Callable:
    """So many steps in a loop from a state on, and the metrics and gradients of the last.

    It is compiled once for a pair and method, whatever the number.
    """
    batches = [arrays(task.batches, number) for number in range(len(task.batches))]
    watched = jax.jit(step.watched)

    def run(state, count, *batches):
        def body(_, carry):
            batch = jax.tree.map(lambda *x: jnp.stack(x)[carry[0].step % len(x)], *batches)
            return watched(carry[0], batch)

        shapes = jax.eval_shape(watched, state, batches[0])[1:]
        last = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.fori_loop(0, count, body, (state, *last))

    jitted = pair.compiled(f"steps with {method}", run)
    return lambda state, count: jitted(state, count, *batches)


def flax_steps(pair: Pair, task: Task, name: str) -> Iterator[Step]:
    """The steps of the Flax model with a method of that name."""
    model = pair.flax_model()
    step = training_step(pair, task, METHODS[name])
    run = several(pair, task, step, name)
    state = step.state
    for _ in range(STEPS):
        before = state
        state, metrics, gradients = run(before, 1)
        moved = [
            np.asarray(new) - np.asarray(old)
            for new, old in zip(state.params, before.params, strict=True)
        ]
        yield Step(
            {name: np.asarray(value) for name, value in metrics.items()},
            {
                _label(part, name): value
                for index, part in enumerate(task.objectives)
                for name, value in bridge.state_dict(
                    model, step.tree(gradients[index], index)
                ).items()
            },
            {
                f"{slot} of {name}": value
                for index, moments in enumerate(step.moments(state))
                for slot, leaves in _slots(moments)
                for name, value in bridge.state_dict(model, step.tree(leaves, index)).items()
            },
            bridge.state_dict(model, step.tree(moved)),
            bridge.state_dict(model, nnx.state(step.model(state), nnx.BatchStat)),
        )


def torch_steps(pair: Pair, task: Task, name: str) -> Iterator[Step]:
    """The steps of the torch model with a method of that name."""
    method = METHODS[name]
    model = pair.torch_model().train()
    parameters = dict(model.named_parameters())
    names = {parameter: name for name, parameter in parameters.items()}
    weights = dict(model.named_parameters(remove_duplicate=False))
    unlike = weights.keys() | pair.torch_only  # than a statistic of both sides
    drawn = {
        part: draws(objective, pair.flax_model(), arrays(task.batches, 0))
        for part, objective in task.objectives.items()
    }
    engines = {part: method.torch(loop.parameters(model, part)) for part in task.torch_objectives}
    for number in range(STEPS):
        inputs, targets = arrays(task.batches, number)
        batch = loop.batch_of(inputs, targets, tuple(given.axes for given in task.examples))
        before = {name: value.detach().clone() for name, value in parameters.items()}
        losses: list[torch.Tensor] = []
        metrics: dict[str, torch.Tensor] = {}
        gradients: dict[str, np.ndarray] = {}
        for part, objective in task.torch_objectives.items():
            optimizer, scheduler = engines[part]
            own = [value for group in optimizer.param_groups for value in group["params"]]
            with replay(fold_in(key(0), number), drawn[part]):
                loss, figures = objective(model, batch)
            found = torch.autograd.grad(loss, own, allow_unused=True)
            for parameter, gradient in zip(own, found, strict=True):
                parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
                gradients[_label(part, names[parameter])] = parameter.grad.numpy().copy()
            if method.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(own, method.clip_norm)
            if method.clip_value is not None:
                torch.nn.utils.clip_grad_value_(own, method.clip_value)
            optimizer.step()
            if method.schedule == "reduce_lr_on_plateau":
                scheduler.step(loss.item())
            elif scheduler is not None:
                scheduler.step()
            losses.append(loss.detach())
            metrics |= {f"{part}_loss": loss.detach()} if part else {}
            metrics |= figures
        metrics["loss"] = sum(losses[1:], losses[0])
        yield Step(
            {name: value.detach().numpy() for name, value in metrics.items()},
            gradients,
            {
                f"{slot} of {names[parameter]}": value.numpy().copy()
                for optimizer, _ in engines.values()
                for parameter, slots in optimizer.state.items()
                for slot, value in slots.items()
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape != ()
            },
            {name: (value.detach() - before[name]).numpy() for name, value in parameters.items()},
            {
                name: value.numpy().copy()
                for name, value in model.state_dict().items()
                if name not in unlike
            },
        )


def _label(part: str, name: str) -> str:
    """A gradient's name; a phase that moves a part only may see others' parameters too."""
    return f"{name} in phase {part}" if part else name


def _slots(moments: Any) -> Iterator[tuple[str, list[jax.Array]]]:
    """The slots of an optimizer that hold an array for every parameter."""
    for state in jax.tree.leaves(moments, is_leaf=lambda x: hasattr(x, "step")):
        for slot, value in getattr(state, "_asdict", dict)().items():
            if isinstance(value, nnx.State):
                yield slot, jax.tree.leaves(value)


def arrays(batches: Sequence[Any], number: int) -> Any:
    """The batch of a step: real numbers in float64, others in int32."""

    def cast(x):
        x = np.asarray(x)
        return jax.device_put(x.astype(np.float64 if x.dtype.kind == "f" else np.int32))

    return jax.tree.map(cast, batches[number % len(batches)])
