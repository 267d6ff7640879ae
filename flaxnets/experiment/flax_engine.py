"""Jitted training in JAX, behind the interface of both backends."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from flaxnets import bridge, specs, tasks
from flaxnets.bridge.convert import tied
from flaxnets.data import Dataset, Resident, fits
from flaxnets.data.stream import stream
from flaxnets.experiment import run_folder
from flaxnets.experiment.engine import Trained, averages, begin, in_float64, wide
from flaxnets.experiment.recipe import Recipe
from flaxnets.layers import kernels_taken
from flaxnets.swap import handover_flax
from flaxnets.swap.handover import Handover
from flaxnets.training import Phase, Trainer, TrainStep, clipping, dispatch, optimizers, schedules
from flaxnets.training import mesh as meshes
from flaxnets.training.loop import Heard, Predictor


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
        chosen = wide(recipe, chosen)
        phases = [
            Phase(objective, _optax(recipe), part)
            for part, objective in tasks.of(spec).objectives(spec, **recipe.of_task).items()
        ]
        self._recipe, self._parts = recipe, [phase.part for phase in phases]
        # Drawing inside of one program, where no device can hold all, takes twice as long.
        divided = mesh is not None and not recipe.init and recipe.precision != "float64"
        self._step = TrainStep(
            (lambda: begin(spec, recipe)) if divided else begin(spec, recipe),
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
            bridge.load_state_dict(average, own | {**averages(found)})
        state = self._step.with_moments(state, [after[part] for part in self._parts])
        self._step.state = self._step.with_model(state, model, found.step, average)
        self._trainer = Trainer(self._step, self._given, self._dispatch)

    def trained(self) -> Trained:
        model = self._step.model(self._trainer.state)
        self._predict = predict = self._predict or Predictor(model)
        wide = self._recipe.precision == "float64"

        def call(inputs: Any, axes: Any, part: str | None) -> np.ndarray:
            return predict(model, in_float64(inputs) if wide else inputs, part or "__call__")

        return Trained(model, bridge.state_dict(model), call)

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


def _rate(recipe: Recipe) -> Any:
    """The learning rate as a number or a function of the steps taken before."""
    lr: Any = recipe.lr
    found = [getattr(schedules, name)(lr, **told) for name, told in recipe.schedules()]
    if not found:
        return lr
    return schedules.sequential_lr(found, [recipe.warmup]) if found[1:] else found[0]


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
