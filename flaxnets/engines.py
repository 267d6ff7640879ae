"""The two backends behind one interface: the same experiment in either.

From one spec and recipe both begin with the same weights, meet the same examples in the same
order and draw the same random numbers.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

import flaxnets
from flaxnets import bridge, run_folder, specs
from flaxnets.bridge.convert import as_numpy, in_dtype, tied
from flaxnets.data import Dataset, Lazy, Resident, batches, fits
from flaxnets.data.stream import stream
from flaxnets.edge.structure import require_alike
from flaxnets.evaluation import Call
from flaxnets.layers import kernels_taken
from flaxnets.recipe import Recipe
from flaxnets.swap import handover_flax
from flaxnets.swap.handover import Handover, HandoverError
from flaxnets.training import Phase, Trainer, TrainStep, clipping, dispatch, objectives, optimizers
from flaxnets.training import mesh as meshes
from flaxnets.training import schedules as optax_schedules
from flaxnets.training.loop import Heard, Predictor, TrainingError
from flaxnets.training.randomness import draws


@dataclass(frozen=True)
class Trained:
    """A trained network of either backend: its weights and its calls."""

    weights: dict[str, np.ndarray]
    call: Call


class Engine(Protocol):
    """What a run asks of a backend."""

    @property
    def taken(self) -> int:
        """How many steps were taken."""

    @property
    def kernels(self) -> set[str]:
        """What attention was computed with, where that is known."""

    def advance(self, until: int, on_step: Heard, stopping: Callable[[], bool]) -> None:
        """Take steps until there are so many, or until it is time to stop."""

    def like(self) -> Any:
        """Arrays of the form that `state` gives."""

    def state(self) -> tuple[Any, dict[str, Any]]:
        """All that the next step depends on: arrays, and what JSON holds."""

    def load_state(self, arrays: Any, rest: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""

    def handover(self) -> Handover:
        """The same in a form of neither backend."""

    def take_over(self, found: Handover) -> None:
        """Go on from what `handover` of either backend gave, of the same spec and recipe."""

    def trained(self) -> Trained:
        """The network as it is now."""

    def facts(self) -> dict[str, Any]:
        """What of the engine has to be the same when a run is resumed."""


def begin(spec: specs.Spec, recipe: Recipe) -> nnx.Module:
    """The network that a run begins with, in Flax; traced, it allocates nothing.

    Raises:
        bridge.BridgeError: weights to begin with that are not the network's.
        OSError: a file of weights that cannot be read.
    """
    if recipe.precision != "float64":
        model = flaxnets.build(spec, "flax", recipe.seed)
        if recipe.init is not None:
            bridge.load(model, recipe.init)
        return model
    with jax.enable_x64(False):  # the weights that a run in float32 begins with
        model = flaxnets.build(spec, "flax", recipe.seed)
    model = in_dtype(model, "float64")
    if recipe.init is not None:
        state = {name: _in_float64(x) for name, x in bridge.read(recipe.init).items()}
        bridge.load_state_dict(model, state)
    return model


def _in_float64(given: Any) -> Any:
    """Real arrays, in a tree or read one by one, in float64."""

    def cast(x: Any) -> Any:
        if x.dtype.kind != "f":
            return x
        return x.map(cast) if isinstance(x, Lazy) else x.astype(np.float64)

    return jax.tree.map(cast, given)


def _wide(recipe: Recipe, chosen: Dataset) -> Dataset:
    """The training data in the precision of a run."""
    if recipe.precision != "float64":
        return chosen
    inputs, targets = _in_float64((chosen.train_inputs, chosen.train_targets))
    return replace(chosen, train_inputs=inputs, train_targets=targets)


class FlaxEngine:
    """Jitted training in JAX, on one device or a mesh of them; float64 wants `jax.enable_x64`.

    Args:
        spec: of the network.
        recipe: settled.
        chosen: the data, as it fits the network.
        mesh: of devices; None for the default one.
        told: the facts of the run that is resumed.
    """

    def __init__(
        self,
        spec: specs.Spec,
        recipe: Recipe,
        chosen: Dataset,
        mesh: Mesh | None = None,
        told: run_folder.Engine | None = None,
    ) -> None:
        assert recipe.batch_size is not None  # as settled
        if mesh is not None:
            meshes.require_divisible(mesh, recipe.batch_size, recipe.accumulate)
        chosen = _wide(recipe, chosen)
        phases = [
            Phase(objective, _optax(recipe), part)
            for part, objective in objectives.phases(
                spec.task, spec.outputs, recipe.noise, recipe.label_smoothing
            ).items()
        ]
        self._recipe, self._parts = recipe, [phase.part for phase in phases]
        at_once = recipe.init or recipe.precision == "float64"
        self._step = TrainStep(
            begin(spec, recipe) if at_once else lambda: begin(spec, recipe),
            *phases,
            seed=recipe.seed,
            precision="bfloat16" if recipe.precision == "bfloat16" else "float32",
            accumulate=recipe.accumulate,
            ema=recipe.ema,
            remat=recipe.remat,
            mesh=mesh,
        )
        self._given = _Batches(chosen, recipe, mesh)
        self._kernels: set[str] = set()
        first = self._step.put(self._given(0))
        if told and told.dispatch:
            self._dispatch = dispatch.Dispatch(*told.dispatch)
        elif recipe.steps_per_dispatch:
            self._dispatch = dispatch.fixed(self._step, first, recipe.steps_per_dispatch)
        elif jax.process_count() > 1:  # which would have to choose the same
            self._dispatch = dispatch.SINGLE
        else:
            with kernels_taken(self._kernels):
                self._dispatch = dispatch.choose(self._step, first)
        self._trainer = Trainer(self._step, self._given, self._dispatch)
        self._predict: Predictor | None = None

    @property
    def taken(self) -> int:
        return self._trainer.taken

    @property
    def kernels(self) -> set[str]:
        return self._kernels

    def advance(self, until: int, on_step: Heard, stopping: Callable[[], bool]) -> None:
        with kernels_taken(self._kernels):
            self._trainer.advance(until, on_step, stopping)

    def like(self) -> Any:
        shardings = self._step.shardings or jax.tree.map(lambda x: x.sharding, self._trainer.state)
        return jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            self._trainer.state,
            shardings,
        )

    def state(self) -> tuple[Any, dict[str, Any]]:
        return self._trainer.state, {}

    def load_state(self, arrays: Any, rest: Mapping[str, Any]) -> None:
        self._step.state = arrays  # nothing holds the first state any longer
        self._trainer = Trainer(self._step, self._given, self._dispatch)

    def handover(self) -> Handover:
        state, recipe = self._trainer.state, self._recipe
        model = self._step.model(state._replace(averages=()))
        moments = dict(zip(self._parts, self._step.moments(state), strict=True))
        options = dict.fromkeys(self._parts, _options(recipe))
        weights, found = handover_flax.capture(model, moments, self.taken, options)
        average = None
        if state.averages:
            average = bridge.state_dict(model, self._step.tree(state.averages))
        assert recipe.optimizer is not None  # as settled
        return Handover(
            step=self.taken,
            weights=weights,
            optimizers={part: replace(own, name=recipe.optimizer) for part, own in found.items()},
            seed=recipe.seed,
            average=average,
        )

    def take_over(self, found: Handover) -> None:
        state, average = self._trainer.state, None
        model = self._step.model(state)
        moments = dict(zip(self._parts, self._step.moments(state), strict=True))
        after = handover_flax.restore(model, moments, found, {})
        if state.averages:
            average, copies = self._step.model(state), tied(model)
            own = {name: value for name, value in found.weights.items() if name not in copies}
            bridge.load_state_dict(average, own | {**_average(found)})
        state = self._step.with_moments(state, [after[part] for part in self._parts])
        self._step.state = self._step.with_model(state, model, found.step, average)
        self._trainer = Trainer(self._step, self._given, self._dispatch)

    def trained(self) -> Trained:
        model = self._step.model(self._trainer.state)
        self._predict = predict = self._predict or Predictor(model)
        wide = self._recipe.precision == "float64"

        def call(inputs: Any, axes: Any, part: str | None) -> np.ndarray:
            return predict(model, _in_float64(inputs) if wide else inputs, part or "__call__")

        return Trained(bridge.state_dict(model), call)

    def facts(self) -> dict[str, Any]:
        return {"dispatch": list(self._dispatch)}


class _Batches:
    """The batch of a step by its number: from the device where all fit, else from threads."""

    def __init__(self, chosen: Dataset, recipe: Recipe, mesh: Mesh | None) -> None:
        assert recipe.batch_size is not None  # as settled
        order = chosen.train_inputs, chosen.train_targets, recipe.batch_size, recipe.seed
        self._order, self._next = order, 0
        self._stream: Iterator[Any] | None = None
        self._resident = (
            Resident(*order, device=mesh and meshes.everywhere(mesh))
            if fits(chosen, jax.local_devices()[0])
            else None
        )

    def __call__(self, step: int) -> Any:
        if self._resident is not None:
            return self._resident.rows(step)
        if self._stream is None or step != self._next:
            self._stream = stream(
                *self._order,
                start=step,
                process=jax.process_index(),
                processes=jax.process_count(),
            )
        self._next = step + 1
        return next(self._stream)


class TorchEngine:
    """The loop of PyTorch's users, with Flax's first weights, batches and random numbers.

    Args:
        spec: of the network.
        recipe: settled.
        chosen: the data, as it fits the network.
    """

    def __init__(self, spec: specs.Spec, recipe: Recipe, chosen: Dataset) -> None:
        from torch_ref.arrays import tensors
        from torch_ref.random import fold_in, key, replay, split
        from torch_ref.training import loop
        from torch_ref.training import objectives as torch_objectives
        from torch_ref.training import optimizers as torch_optimizers

        assert recipe.optimizer is not None
        assert recipe.batch_size is not None  # as settled
        chosen = _wide(recipe, chosen)
        model = flaxnets.build(spec, "torch", recipe.seed)
        if recipe.precision == "float64":
            model = model.double()
        first = begin(spec, recipe)
        model.load_state_dict(tensors(bridge.state_dict(first)))
        axes = tuple(given.axes for given in spec.examples(1))
        self._axes = axes if len(axes) > 1 else axes[0]
        create: Any = torch_optimizers.BY_NAME[recipe.optimizer]
        phases = []
        for part, objective in torch_objectives.phases(
            spec.task, spec.outputs, recipe.noise, recipe.label_smoothing
        ).items():
            optimizer = create(
                loop.parameters(model, part), lr=recipe.lr, **recipe.optimizer_options
            )
            phases.append(
                loop.Phase(objective, optimizer, part, _torch_schedule(recipe, optimizer))
            )
        shapes: list[list[tuple[int, ...]]] = []

        def batch(step: int) -> Any:
            given = next(
                batches(
                    chosen.train_inputs,
                    chosen.train_targets,
                    recipe.batch_size,  # type: ignore[arg-type]
                    recipe.seed,
                    start=step,
                )
            )
            if not shapes:
                part = jax.tree.map(lambda x: x[:: recipe.accumulate], given)
                shapes.extend(
                    draws(objective, first, part)
                    for objective in objectives.phases(
                        spec.task, spec.outputs, recipe.noise, recipe.label_smoothing
                    ).values()
                )
            return given

        def randomness(step: int, phase: int, part: int) -> AbstractContextManager:
            drawn = fold_in(key(recipe.seed), step)
            if recipe.accumulate > 1:
                drawn = split(drawn, recipe.accumulate)[part]
            return replay(drawn, shapes[phase])

        self._loop, self._recipe = loop, recipe
        self._trainer = loop.Trainer(
            model,
            phases,
            batch,
            self._axes,
            precision="bfloat16" if recipe.precision == "bfloat16" else "float32",
            accumulate=recipe.accumulate,
            clip_norm=recipe.clip_norm,
            clip_value=recipe.clip_value,
            ema=recipe.ema,
            remat=recipe.remat,
            randomness=randomness,
        )

    @property
    def taken(self) -> int:
        return self._trainer.taken

    @property
    def kernels(self) -> set[str]:
        return set()

    def advance(self, until: int, on_step: Heard, stopping: Callable[[], bool]) -> None:
        try:
            self._trainer.advance(until, on_step, stopping)
        except self._loop.TrainingError as error:
            raise TrainingError(str(error)) from None

    def like(self) -> Any:
        return self._trainer.shape()

    def state(self) -> tuple[Any, dict[str, Any]]:
        arrays, rest = self._trainer.state()
        return arrays, {**rest, "horizon": self._recipe.horizon}

    def load_state(self, arrays: Any, rest: Mapping[str, Any]) -> None:
        require_alike(rest, self.state()[1], "rest")
        self._trainer.load_state(arrays, rest)
        if rest["horizon"] != self._recipe.horizon:
            self._reschedule()

    def _reschedule(self) -> None:
        """Set the rates that a run of as many steps as this one would have here."""
        from torch_ref.training.schedules import wind

        phases = []
        for phase in self._trainer.phases:
            for group in phase.optimizer.param_groups:
                group["lr"] = self._recipe.lr
                group.pop("initial_lr", None)
            scheduler = _torch_schedule(self._recipe, phase.optimizer)
            if scheduler is not None:
                wind(scheduler, self.taken)
            phases.append(phase._replace(scheduler=scheduler))
        self._trainer.phases = phases

    def _optimizers(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Optimizers and schedulers by the part of the model that they move."""
        phases = self._trainer.phases
        optimizers = {phase.part: phase.optimizer for phase in phases}
        return optimizers, {phase.part: phase.scheduler for phase in phases}

    def handover(self) -> Handover:
        from flaxnets.swap import handover_torch

        trainer = self._trainer
        optimizers, schedulers = self._optimizers()
        weights, found = handover_torch.capture(trainer.model, optimizers, self.taken, schedulers)
        average = None
        if trainer.average is not None:
            averaged = trainer.average.module.named_parameters()
            average = {name: as_numpy(value).copy() for name, value in averaged}
        return Handover(
            step=self.taken,
            weights=weights,
            optimizers=found,
            seed=self._recipe.seed,
            average=average,
        )

    def take_over(self, found: Handover) -> None:
        from flaxnets.swap import handover_torch

        trainer = self._trainer
        optimizers, schedulers = self._optimizers()
        average = None if trainer.average is None else trainer.average.module
        handover_torch.restore(trainer.model, optimizers, found, schedulers, average)
        if trainer.average is not None:
            trainer.average.n_averaged.fill_(found.step)
        trainer.taken = found.step

    def trained(self) -> Trained:
        model = self._trainer.trained
        wide = self._recipe.precision == "float64"

        def call(inputs: Any, axes: Any, part: str | None) -> np.ndarray:
            given = _in_float64(inputs) if wide else inputs
            return self._loop.predict(model, given, axes, part or "forward")

        return Trained({name: as_numpy(value) for name, value in model.state_dict().items()}, call)

    def facts(self) -> dict[str, Any]:
        return {}


def _average(found: Handover) -> Mapping[str, np.ndarray]:
    if found.average is None:
        raise HandoverError("an average of the weights is missing")
    return found.average


def _rate(recipe: Recipe) -> Any:
    """The learning rate as a number or a function of the steps taken before."""
    lr: Any = recipe.lr
    found = [getattr(optax_schedules, name)(lr, **told) for name, told in recipe.schedules()]
    if not found:
        return lr
    return optax_schedules.sequential_lr(found, [recipe.warmup]) if found[1:] else found[0]


def _options(recipe: Recipe) -> dict[str, Any]:
    """All that the optimizer is made with, by torch's names."""
    assert recipe.optimizer is not None
    create = inspect.signature(optimizers.BY_NAME[recipe.optimizer])
    told = create.bind(lr=_rate(recipe), **recipe.optimizer_options)
    told.apply_defaults()
    return dict(told.arguments)


def _optax(recipe: Recipe) -> optax.GradientTransformation:
    assert recipe.optimizer is not None
    lr = _rate(recipe)
    clips = []
    if recipe.clip_norm is not None:
        clips.append(clipping.clip_grad_norm(recipe.clip_norm))
    if recipe.clip_value is not None:
        clips.append(clipping.clip_grad_value(recipe.clip_value))
    optimizer = optimizers.BY_NAME[recipe.optimizer](lr=lr, **recipe.optimizer_options)
    return optax.chain(*clips, optimizer) if clips else optimizer


def _torch_schedule(recipe: Recipe, optimizer: Any) -> Any:
    from torch_ref.training import schedules

    found = [schedules.BY_NAME[name](optimizer, **told) for name, told in recipe.schedules()]
    if len(found) < 2:
        return found[0] if found else None
    return schedules.BY_NAME["sequential_lr"](optimizer, found, [recipe.warmup])
