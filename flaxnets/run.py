"""One training run, from a spec to files on disk, in either backend.

A run leaves `spec.json`, `metrics.jsonl` (a line a step) and `model.safetensors` behind.
"""

import importlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

import flaxnets
from flaxnets import bridge, data, specs, training
from flaxnets.bridge.convert import as_numpy
from flaxnets.bridge.files import atomic
from flaxnets.training import objectives, optimizers
from flaxnets.training.loop import TrainingError
from flaxnets.training.progress import ProgressLog


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        backend: the twin that is trained.
        data: a data set by name; None for the network's own.
        data_dir: a folder of IDX files to read in its place.
        steps: how many batches.
        batch_size: examples a batch.
        optimizer: with torch's defaults but for `lr`.
        lr: learning rate.
        seed: of weights, order of examples and dropout.
    """

    backend: Literal["flax", "torch"] = "flax"
    data: str | None = None
    data_dir: Path | None = None
    steps: int = 500
    batch_size: int = 64
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    lr: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise TrainingError(f"steps {self.steps} is too small; use 1 or more")
        if not 0 < self.lr < float("inf"):
            raise TrainingError(f"lr {self.lr} is not a positive number")


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        losses: one a step.
        test_inputs: as the network ate them.
        test_labels: of these.
        predictions: the trained network's classes for these.
        out: the folder with the run's files.
    """

    losses: list[float]
    test_inputs: np.ndarray
    test_labels: np.ndarray
    predictions: np.ndarray
    out: Path

    @property
    def accuracy(self) -> float:
        """The share of test examples whose class was found."""
        return float(np.mean(self.predictions == self.test_labels))


def train(spec: specs.Spec, recipe: Recipe, out: Path) -> Outcome:
    """Train a network and leave its files in a folder that is new or empty.

    Raises:
        data.DataError: data that is absent or does not fit the network.
        TrainingError: a loss that is not finite, or a folder that holds something.
        OSError: files that cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"{out} is there and not empty; choose another folder")
    chosen = data.load(recipe.data or spec.data, recipe.data_dir)
    (eaten,) = spec.inputs(1)
    if chosen.num_classes > (classes := spec.num_classes):  # type: ignore[attr-defined]
        raise data.DataError(
            f"{chosen.name} has {chosen.num_classes} classes but num_classes is {classes}"
        )
    train_inputs, test_inputs = (
        data.fit_to(images, eaten.shape, eaten.axes)
        for images in (chosen.train_images, chosen.test_images)
    )
    batches = data.batches(train_inputs, chosen.train_labels, recipe.batch_size, recipe.seed)
    first = next(batches)  # an impossible batch size shows before anything is written
    out.mkdir(parents=True, exist_ok=True)
    with atomic(out / "spec.json") as file:
        file.write(spec.to_json().encode())
    losses: list[float] = []
    with (
        open(out / "metrics.jsonl", "w", buffering=1) as lines,
        ProgressLog(f"{spec.name} ({recipe.backend})", recipe.steps) as progress,
    ):
        began = time.perf_counter()

        def on_step(step: int, metrics: dict[str, float]) -> None:
            losses.append(metrics["loss"])
            line = {"step": step, **metrics, "seconds": round(time.perf_counter() - began, 4)}
            lines.write(json.dumps(line) + "\n")
            progress(step, metrics)

        engine: Callable[..., Engine] = _flax if recipe.backend == "flax" else _torch
        weights, predict = engine(spec, recipe, _chain(first, batches), on_step)
        predictions = predict(test_inputs).argmax(-1)
        outcome = Outcome(losses, test_inputs, chosen.test_labels, predictions, out)
        last = {"step": recipe.steps, "test_accuracy": outcome.accuracy}
        lines.write(json.dumps(last) + "\n")
    bridge.write(weights, out / "model.safetensors")
    return outcome


Engine = tuple[dict[str, np.ndarray], Callable[[np.ndarray], np.ndarray]]


def _flax(spec: specs.Spec, recipe: Recipe, batches: Any, on_step: Callable) -> Engine:
    objective = objectives.BY_TASK[spec.task](spec.outputs)
    optimizer = optimizers.BY_NAME[recipe.optimizer](lr=recipe.lr)
    model = flaxnets.build(spec, "flax", recipe.seed)
    step = training.TrainStep(model, objective, optimizer, recipe.seed)
    trained = step.model(training.fit(step, batches, recipe.steps, on_step))
    return bridge.state_dict(trained), lambda inputs: training.predict(trained, inputs)


def _torch(spec: specs.Spec, recipe: Recipe, batches: Any, on_step: Callable) -> Engine:
    ref = {
        name: importlib.import_module(f"torch_ref.training.{name}")
        for name in ("loop", "objectives", "optimizers")
    }
    objective = ref["objectives"].BY_TASK[spec.task](spec.outputs)
    model = flaxnets.build(spec, "torch", recipe.seed)
    optimizer = ref["optimizers"].BY_NAME[recipe.optimizer](model.parameters(), lr=recipe.lr)
    (eaten,) = spec.inputs(1)
    try:
        ref["loop"].fit(model, objective, optimizer, batches, recipe.steps, eaten.axes, on_step)
    except ref["loop"].TrainingError as error:
        raise TrainingError(str(error)) from None
    weights = {name: as_numpy(value) for name, value in model.state_dict().items()}
    return weights, lambda inputs: ref["loop"].predict(model, inputs, eaten.axes)


def _chain(first: Any, rest: Any) -> Any:
    yield first
    yield from rest
