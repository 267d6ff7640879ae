"""The loop of PyTorch's users, behind the interface of both backends.

A run begins with Flax's first weights, and meets the same batches and random numbers.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np

import flaxnets
from flaxnets import bridge, specs, tasks
from flaxnets.bridge.convert import as_numpy
from flaxnets.data import Dataset, batches
from flaxnets.edge.structure import StructureError, require_alike
from flaxnets.experiment.engine import Trained, begin, in_float64, wide
from flaxnets.experiment.recipe import Recipe
from flaxnets.swap import handover_torch
from flaxnets.swap.handover import Handover
from flaxnets.training.loop import Heard, TrainingError
from flaxnets.training.randomness import draws
from torch_ref import tasks as torch_tasks
from torch_ref.arrays import tensors
from torch_ref.random import fold_in, key, replay, split
from torch_ref.training import loop, optimizers, schedules


class TorchEngine:
    """The loop of PyTorch's users, with Flax's first weights, batches and random numbers.

    Args:
        spec: of the network.
        recipe: settled.
        chosen: the data, as it fits the network.
    """

    def __init__(self, spec: specs.Spec, recipe: Recipe, chosen: Dataset) -> None:
        assert recipe.optimizer is not None
        assert recipe.batch_size is not None  # as settled
        chosen = wide(recipe, chosen)
        model = flaxnets.build(spec, "torch", recipe.seed)
        if recipe.precision == "float64":
            model = model.double()
        first = begin(spec, recipe)
        model.load_state_dict(tensors(bridge.state_dict(first)))
        create: Any = optimizers.BY_NAME[recipe.optimizer]
        phases = []
        for part, objective in torch_tasks.objectives(spec, **recipe.of_task).items():
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
                    for objective in tasks.of(spec).objectives(spec, **recipe.of_task).values()
                )
            return given

        def randomness(step: int, phase: int, part: int) -> AbstractContextManager:
            drawn = fold_in(key(recipe.seed), step)
            if recipe.accumulate > 1:
                drawn = split(drawn, recipe.accumulate)[part]
            return replay(drawn, shapes[phase])

        self._recipe, self._axes = recipe, tasks.axes(spec)
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
        except loop.TrainingError as error:
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
            try:
                self._reschedule()
            except ValueError as error:
                raise StructureError(f"rest.taken: {error}") from None

    def _reschedule(self) -> None:
        """Set the rates that a run of as many steps as this one would have here."""
        phases = []
        for phase in self._trainer.phases:
            for group in phase.optimizer.param_groups:
                group["lr"] = self._recipe.lr
                group.pop("initial_lr", None)
            scheduler = _torch_schedule(self._recipe, phase.optimizer)
            if scheduler is not None:
                schedules.wind(scheduler, self.taken)
            phases.append(phase._replace(scheduler=scheduler))
        self._trainer.phases = phases

    def _optimizers(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Optimizers and schedulers by the part of the model that they move."""
        phases = self._trainer.phases
        optimizers = {phase.part: phase.optimizer for phase in phases}
        return optimizers, {phase.part: phase.scheduler for phase in phases}

    def handover(self) -> Handover:
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
            given = in_float64(inputs) if wide else inputs
            return loop.predict(model, given, axes, part or "forward")

        weights = {name: as_numpy(value) for name, value in model.state_dict().items()}
        return Trained(model, weights, call)

    def facts(self) -> dict[str, Any]:
        return {}


def _torch_schedule(recipe: Recipe, optimizer: Any) -> Any:
    found = [schedules.BY_NAME[name](optimizer, **told) for name, told in recipe.schedules()]
    if len(found) < 2:
        return found[0] if found else None
    return schedules.BY_NAME["sequential_lr"](optimizer, found, [recipe.warmup])
