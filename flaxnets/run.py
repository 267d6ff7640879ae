"""One training run, from a spec to files on disk, in either backend.

A run leaves `spec.json`, `metrics.jsonl` (a line a step, then the final figures),
`model.safetensors`, pictures and, of networks that read, `examples.txt` behind.
"""

import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

import flaxnets
from flaxnets import bridge, data, specs, training
from flaxnets.bridge.convert import as_numpy
from flaxnets.bridge.files import atomic
from flaxnets.evaluation import Call, Evaluation, evaluate
from flaxnets.training import Phase, objectives, optimizers
from flaxnets.training.loop import TrainingError
from flaxnets.training.progress import ProgressLog

OptimizerName = Literal[
    "sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "radam"
]
WITH_BETAS = ("adam", "adamw", "adamax", "nadam", "radam")
STEPS, BATCH_SIZE, LR = 500, 64, 1e-3  # where neither user nor network says otherwise


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained; what is None is the network's own or a common default.

    Attributes:
        backend: the twin that is trained.
        data: a data set by name.
        data_dir: a folder of IDX, CoNLL-U or text files to read in its place.
        steps: how many batches; 500 if nothing is said.
        epochs: how many times through the data, in place of steps.
        batch_size: examples a batch; 64, or all if there are fewer.
        optimizer: with torch's defaults but for what is given here.
        lr: learning rate; 0.001 if nothing is said.
        betas: of the optimizers of Adam's family.
        noise: standard deviation of the noise that a reconstruction has to take away.
        seed: of weights, order of examples and random numbers.
    """

    backend: Literal["flax", "torch"] = "flax"
    data: str | None = None
    data_dir: Path | None = None
    steps: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: OptimizerName | None = None
    lr: float | None = None
    betas: tuple[float, float] | None = None
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "epochs", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise TrainingError(f"{name} {value} is too small; use 1 or more")
        if self.steps and self.epochs:
            raise TrainingError(f"steps {self.steps} and epochs {self.epochs}: give one of them")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise TrainingError(f"lr {self.lr} is not a positive number")
        if self.noise < 0:
            raise TrainingError(f"noise {self.noise} is negative; use 0 or more")
        if self.betas and self.optimizer not in (None, *WITH_BETAS):
            raise TrainingError(
                f"betas {self.betas} are of {', '.join(WITH_BETAS)}, not of {self.optimizer}"
            )

    def settled(self, spec: specs.Spec, examples: int) -> "Recipe":
        """The recipe with nothing left open, for a network and a number of examples."""
        own = spec.recipe(self.data or spec.data)
        if self.optimizer not in (None, own.get("optimizer")):
            own = {name: value for name, value in own.items() if name not in ("lr", "betas")}
        if self.steps or self.epochs:
            own = {name: value for name, value in own.items() if name not in ("steps", "epochs")}
        open_ = {name for name, value in vars(self).items() if value is None}
        recipe = replace(self, **{name: own[name] for name in open_ & own.keys()})
        batch_size = recipe.batch_size or min(BATCH_SIZE, examples)
        steps = recipe.epochs * (examples // batch_size) if recipe.epochs else recipe.steps
        return replace(
            recipe,
            data=recipe.data or spec.data,
            batch_size=batch_size,
            steps=steps or STEPS,
            epochs=None,
            optimizer=recipe.optimizer or "adam",
            lr=recipe.lr or LR,
        )

    @property
    def optimizer_options(self) -> dict[str, Any]:
        """What the optimizer is made with, in either backend."""
        return {"lr": self.lr, **({"betas": self.betas} if self.betas else {})}


@dataclass(frozen=True, kw_only=True)
class Outcome(Evaluation):
    """What a run came to.

    Attributes:
        losses: one a step.
        inputs: of the test, as the network eats them.
        targets: of these.
        out: the folder with the run's files.
    """

    losses: list[float]
    inputs: Any
    targets: np.ndarray
    out: Path


@dataclass(frozen=True)
class Trained:
    """A trained network of either backend: its weights and its calls."""

    weights: dict[str, np.ndarray]
    call: Call


def train(spec: specs.Spec, recipe: Recipe, out: Path) -> Outcome:
    """Train a network and leave its files in a folder that is new or empty.

    Raises:
        data.DataError: data that is absent or does not fit the network.
        TrainingError: a loss that is not finite, or a folder that holds something.
        OSError: files that cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"{out} is there and not empty; choose another folder")
    if not spec.task:
        raise TrainingError(f"{spec.name}: {spec.twin} has nothing that it is trained towards")
    chosen = data.load(recipe.data or spec.data, recipe.data_dir)
    _check_targets(spec, chosen)
    chosen = data.fit(chosen, spec.examples(1), spec.targets(1))
    wanted = spec.targets(1)
    if wanted and wanted.axes != "bt" and chosen.train_targets.shape[1:] != wanted.shape[1:]:
        raise data.DataError(
            f"{chosen.name} has targets {chosen.train_targets.shape[1:]}, "
            f"{spec.name} outputs {wanted.shape[1:]}"
        )
    recipe = recipe.settled(spec, len(chosen.train_targets))
    assert recipe.batch_size is not None  # as settled
    batches = data.batches(
        chosen.train_inputs, chosen.train_targets, recipe.batch_size, recipe.seed
    )
    first = next(batches)  # an impossible batch size shows before anything is written
    out.mkdir(parents=True, exist_ok=True)
    with atomic(out / "spec.json") as file:
        file.write(spec.to_json().encode())
    losses: list[float] = []
    with (
        open(out / "metrics.jsonl", "w", buffering=1) as lines,
        ProgressLog(f"{spec.name} ({recipe.backend})", recipe.steps or 0) as progress,
    ):
        began = time.perf_counter()

        def on_step(step: int, metrics: dict[str, float]) -> None:
            losses.append(metrics["loss"])
            line = {"step": step, **metrics, "seconds": round(time.perf_counter() - began, 4)}
            lines.write(json.dumps(line) + "\n")
            progress(step, metrics)

        engine = _flax if recipe.backend == "flax" else _torch
        trained = engine(spec, recipe, chain([first], batches), on_step)
        found = evaluate(spec, trained.call, chosen)
        lines.write(json.dumps({"step": recipe.steps, **found.figures}) + "\n")
    bridge.write(trained.weights, out / "model.safetensors")
    if found.examples:
        (out / "examples.txt").write_text("\n".join(found.examples) + "\n")
    outcome = Outcome(
        **vars(found),
        losses=losses,
        inputs=chosen.test_inputs,
        targets=chosen.test_targets,
        out=out,
    )
    _draw(spec, outcome)
    return outcome


def _check_targets(spec: specs.Spec, chosen: data.Dataset) -> None:
    """Targets of the network's kind, and room for every token and label of the data."""
    small = {
        field: size
        for field, size in chosen.sizes.items()
        if hasattr(spec, field) and getattr(spec, field) < size
    }
    if small:
        needed = ", ".join(f"{field} {size}" for field, size in small.items())
        given = ", ".join(f"{field} {getattr(spec, field)}" for field in small)
        raise data.DataError(f"{chosen.name} needs {needed}, {spec.name} has {given}")
    wanted = spec.targets(1)
    if wanted is None:
        return
    if (wanted.high is None) != (chosen.num_classes is None):
        kind = "labels" if wanted.high else "numbers"
        raise data.DataError(f"{spec.name} is trained towards {kind}, which {chosen.name} lacks")
    if wanted.high is not None and (chosen.num_classes or 0) > wanted.high:
        raise data.DataError(
            f"{chosen.name} has {chosen.num_classes} classes but num_classes is {wanted.high}"
        )


def _flax(spec: specs.Spec, recipe: Recipe, batches: Iterator, on_step: Callable) -> Trained:
    assert recipe.optimizer is not None
    assert recipe.steps is not None  # as settled
    create = optimizers.BY_NAME[recipe.optimizer]
    phases = [
        Phase(objective, create(**recipe.optimizer_options), part)
        for part, objective in objectives.phases(spec.task, spec.outputs, recipe.noise).items()
    ]
    step = training.TrainStep(flaxnets.build(spec, "flax", recipe.seed), *phases, seed=recipe.seed)
    model = step.model(training.fit(step, batches, recipe.steps, on_step))
    return Trained(
        bridge.state_dict(model),
        lambda inputs, axes, part: training.predict(model, inputs, part or "__call__"),
    )


def _torch(spec: specs.Spec, recipe: Recipe, batches: Iterator, on_step: Callable) -> Trained:
    import torch

    from torch_ref.training import loop
    from torch_ref.training import objectives as torch_objectives
    from torch_ref.training import optimizers as torch_optimizers

    assert recipe.optimizer is not None
    assert recipe.steps is not None  # as settled
    create = torch_optimizers.BY_NAME[recipe.optimizer]
    model = flaxnets.build(spec, "torch", recipe.seed)
    phases = [
        loop.Phase(
            objective, create(loop.parameters(model, part), **recipe.optimizer_options), part
        )
        for part, objective in torch_objectives.phases(
            spec.task, spec.outputs, recipe.noise
        ).items()
    ]
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            axes = tuple(given.axes for given in spec.examples(1))
            loop.fit(
                model,
                phases,
                batches,
                recipe.steps,
                axes if len(axes) > 1 else axes[0],
                on_step,
            )
    except loop.TrainingError as error:
        raise TrainingError(str(error)) from None
    return Trained(
        {name: as_numpy(value) for name, value in model.state_dict().items()},
        lambda inputs, axes, part: loop.predict(model, inputs, axes, part or "forward"),
    )


def _draw(spec: specs.Spec, outcome: Outcome) -> None:
    """The pictures that a person would want to see, where matplotlib is there to draw them."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    from flaxnets import pictures

    figures = {"loss": pictures.loss(outcome.losses)}
    if spec.task == "classification":
        counted = outcome.targets != -100
        figures["confusion"] = pictures.confusion(
            outcome.targets[counted],
            outcome.outputs.argmax(-1)[counted],
            outcome.outputs.shape[-1],
        )
    if spec.task in ("reconstruction", "vae") and outcome.inputs.ndim == 4:
        figures["reconstructions"] = pictures.reconstructions(outcome.inputs, outcome.outputs)
    if spec.task == "regression" and spec.examples(1)[0].axes == "btf":
        figures["forecast"] = pictures.forecast(outcome.targets, outcome.outputs)
    if outcome.samples is not None:
        figures["samples"] = pictures.samples(outcome.samples)
    for name, figure in figures.items():
        pictures.save(figure, outcome.out / f"{name}.png")
