"""How a network is trained: what a run is, in either backend and on any number of devices."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from flaxnets import specs, tasks
from flaxnets.edge.structure import parse
from flaxnets.training.loop import TrainingError

OptimizerName = Literal[
    "sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "radam"
]
WITH_BETAS = ("adam", "adamw", "adamax", "nadam", "radam")
STEPS, BATCH_SIZE, LR = 500, 64, 1e-3  # where neither user nor network says otherwise
LEAST = {  # of what is given
    "steps": 1,
    "epochs": 1,
    "batch_size": 1,
    "accumulate": 1,
    "warmup": 0,
    "schedule_steps": 1,
    "eval_every": 1,
    "patience": 1,
    "save_every": 1,
    "keep": 1,
    "steps_per_dispatch": 1,
    "seed": 0,
}
MOST = 2**31 - 1  # of what is counted; steps are int32 on the device
MOST_SEED = 2**32 - 1  # above it a key of JAX depends on whether 64 bits are enabled


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained; what is None is the network's own or a common default.

    Attributes:
        backend: the twin that is trained; flax if nothing is said, of a run that is resumed its
            own. Another goes on from where that run is, in a folder of its own (--out).
        data: a data set by name.
        data_dir: a file or folder to read in its place: IDX, images (a folder a class), npz,
            CSV, CoNLL-U or text.
        init: a .safetensors file of weights to begin with.
        steps: how many batches; 500 if nothing is said. Of a run that is resumed in its folder
            those from its beginning; in another folder (--out) how many more, by default what
            is left of them.
        epochs: how many times through the data, in place of steps.
        batch_size: examples a batch; 64, or all if there are fewer.
        accumulate: how many equal parts a batch is cut into, whose gradients are averaged.
        optimizer: with torch's defaults but for what is given here.
        lr: learning rate; 0.001 if nothing is said.
        betas: of the optimizers of Adam's family.
        weight_decay: of the optimizer.
        schedule: of the rate after the warm-up: none, half a cosine to zero, a line to zero, or
            a tenth of it at half and at three quarters of the way.
        warmup: steps in which the rate rises from almost nothing.
        schedule_steps: how many steps warm-up and schedule are made for, of a run that is to be
            resumed with more; if nothing is said as many as there are, also when they become
            more.
        clip_norm: the largest norm of the gradients.
        clip_value: the largest magnitude of an entry of the gradients.
        ema: share that an average of the weights keeps of itself at each step; the average is
            what is evaluated and written.
        label_smoothing: part of every label that is spread evenly over the classes.
        precision: what the network computes in. Its weights are float32, and float64 where all
            is, which no TPU computes.
        remat: compute cheap things again in the backward pass, in place of keeping them.
        noise: standard deviation of the noise that a reconstruction has to take away.
        eval_every: steps between two evaluations on a tenth of the training data, which is
            then left out of training; the run ends with the weights that did best there.
        patience: evaluations without a better figure after which the run ends.
        save_every: steps between two checkpoints; about a minute if nothing is said.
        keep: how many of the newest checkpoints stay, and the best in addition.
        steps_per_dispatch: how many steps are sent to the device at once; tried out if nothing
            is said. The bits of a run depend on it, if not more than that.
        seed: of weights, order of examples and random numbers, of 32 bits.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    backend: Literal["flax", "torch"] | None = None
    data: str | None = None
    data_dir: Path | None = None
    init: Path | None = None
    steps: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    accumulate: int = 1
    optimizer: OptimizerName | None = None
    lr: float | None = None
    betas: tuple[float, float] | None = None
    weight_decay: float | None = None
    schedule: Literal["constant", "cosine", "linear", "steps"] = "constant"
    warmup: int = 0
    schedule_steps: int | None = None
    clip_norm: float | None = None
    clip_value: float | None = None
    ema: float | None = None
    label_smoothing: float = 0.0
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    remat: bool = False
    noise: float = 0.0
    eval_every: int | None = None
    patience: int | None = None
    save_every: int | None = None
    keep: int = 3
    steps_per_dispatch: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            value, most = getattr(self, name), MOST_SEED if name == "seed" else MOST
            if value is not None and value < least:
                raise TrainingError(f"{name} {value} is too small; use {least} or more")
            if value is not None and value > most:
                raise TrainingError(f"{name} {value} is too large; use {most} or less")
        for name in ("lr", "clip_norm", "clip_value"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise TrainingError(f"{name} {value} is not a positive number")
        for name in ("noise", "weight_decay"):
            if (value := getattr(self, name)) is not None and not 0 <= value < math.inf:
                raise TrainingError(f"{name} {value} is not 0 or a positive number")
        if not all(0 <= beta < 1 for beta in self.betas or ()):
            raise TrainingError(f"betas {self.betas} are not from 0 to below 1")
        if self.steps and self.epochs:
            raise TrainingError(f"steps {self.steps} and epochs {self.epochs}: give one of them")
        if self.steps and self.schedule_steps and self.steps > self.schedule_steps:
            raise TrainingError(
                f"steps {self.steps} are more than the {self.schedule_steps} that the schedule is "
                f"made for; give schedule_steps {self.steps} or more"
            )
        if self.ema is not None and not 0 <= self.ema < 1:
            raise TrainingError(f"ema {self.ema} is not between 0 and 1; 0.999 is usual")
        if not 0 <= self.label_smoothing < 1:
            raise TrainingError(f"label_smoothing {self.label_smoothing} is not between 0 and 1")
        if self.betas and self.optimizer not in (None, *WITH_BETAS):
            raise TrainingError(
                f"betas {self.betas} are of {', '.join(WITH_BETAS)}, not of {self.optimizer}"
            )
        if self.patience and not self.eval_every:
            raise TrainingError(f"patience {self.patience} counts evaluations; give eval_every")
        if self.batch_size and self.batch_size % self.accumulate:
            raise TrainingError(
                f"batch_size {self.batch_size} cannot be cut into {self.accumulate} equal parts"
            )

    def settled(self, spec: specs.Spec, examples: int) -> "Recipe":
        """The recipe with nothing left open, for a network and a number of examples.

        Raises:
            TrainingError: an option that the network's task has no use for.
        """
        own = spec.recipe(self.data or spec.data)
        if self.optimizer not in (None, own.get("optimizer")):
            own = {name: value for name, value in own.items() if name not in ("lr", "betas")}
        if self.steps or self.epochs:
            own = {name: value for name, value in own.items() if name not in ("steps", "epochs")}
        open_ = {name for name, value in vars(self).items() if value is None}
        recipe = replace(self, **{name: own[name] for name in open_ & own.keys()})
        batch_size = recipe.batch_size or min(BATCH_SIZE, examples)
        batch_size -= batch_size % recipe.accumulate if recipe.batch_size is None else 0
        steps = recipe.epochs * (examples // batch_size) if recipe.epochs else recipe.steps
        task = tasks.of(spec)
        for name in sorted(recipe.of_task.keys() - {*tasks.options(task)}):
            others = ", ".join(tasks.with_option(name))
            raise TrainingError(f"{name} is of {others}; {spec.name} is trained for {spec.task}")
        if recipe.schedule_steps and recipe.schedule == "constant" and not recipe.warmup:
            raise TrainingError(
                f"schedule_steps {recipe.schedule_steps} are of a schedule or a warm-up; give one"
            )
        if recipe.eval_every and not tasks.deciding(task):
            raise TrainingError(f"eval_every: a {spec.name} has no figure that says which is best")
        return replace(
            recipe,
            backend=recipe.backend or "flax",
            data=recipe.data or spec.data,
            batch_size=batch_size,
            steps=steps or STEPS,
            epochs=None,
            optimizer=recipe.optimizer or "adam",
            lr=recipe.lr or LR,
        )

    @property
    def optimizer_options(self) -> dict[str, Any]:
        """What the optimizer is made with in either backend, besides the rate."""
        given = {"betas": self.betas, "weight_decay": self.weight_decay}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def of_task(self) -> dict[str, float]:
        """What is given of the options that only some tasks understand.

        >>> Recipe(noise=0.5).of_task
        {'noise': 0.5}
        """
        given = {"label_smoothing": self.label_smoothing, "noise": self.noise}
        return {name: value for name, value in given.items() if value}

    @property
    def horizon(self) -> int:
        """How many steps warm-up and schedule are made for."""
        assert self.steps is not None  # as settled
        return self.schedule_steps or self.steps

    @property
    def copies(self) -> int:
        """How many arrays of a weight's size training holds for each: itself, its gradient, ..."""
        assert self.optimizer is not None  # as settled
        moments = {"sgd": 0, "rmsprop": 1, "adagrad": 1}.get(self.optimizer, 2)
        return (2 + moments + (self.ema is not None)) * (2 if self.precision == "float64" else 1)

    def schedules(self) -> list[tuple[str, dict[str, Any]]]:
        """What the rate follows, by torch's names: the warm-up first, if there is any.

        >>> Recipe(steps=10, warmup=4, schedule="cosine").schedules()[1]
        ('cosine_annealing_lr', {'T_max': 6})
        """
        left = max(self.horizon - self.warmup, 1)
        rising = {"start_factor": 1 / max(self.warmup, 1), "total_iters": max(self.warmup - 1, 1)}
        kinds: dict[str, list[tuple[str, dict[str, Any]]]] = {
            "constant": [],
            "cosine": [("cosine_annealing_lr", {"T_max": left})],
            "linear": [
                ("linear_lr", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": left})
            ],
            "steps": [("multi_step_lr", {"milestones": (left // 2, left * 3 // 4), "gamma": 0.1})],
        }
        falling = kinds[self.schedule]
        if not self.warmup:
            return falling
        flat = ("linear_lr", {"start_factor": 1.0, "end_factor": 1.0, "total_iters": 1})
        return [("linear_lr", rising), *(falling or [flat])]

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON holds it."""
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> "Recipe":
        """The recipe that `to_json` wrote.

        Raises:
            StructureError: an option that there is not, or of another type.
            TrainingError: one that is out of range.

        >>> Recipe.from_json(Recipe(betas=(0.5, 0.9), init=Path("a")).to_json()).betas
        (0.5, 0.9)
        """
        return parse(cls, json.dumps(given), "recipe")

    def resumed(self, asked: "Recipe", taken: int | None = None) -> "Recipe":
        """This recipe of a run, with what may be asked of the rest of it.

        Args:
            asked: steps and those of the schedule, in another folder the backend, and nothing
                else that differs.
            taken: how many steps the run has taken, if the rest goes to another folder.

        Raises:
            TrainingError: another option that differs, by name; no step that is left.
        """
        free = (
            ("steps", "schedule_steps") if taken is None else ("steps", "schedule_steps", "backend")
        )
        for field in fields(self):
            value, own = getattr(asked, field.name), getattr(self, field.name)
            if value in (field.default, own) or field.name in free:
                continue
            if field.name == "backend":
                raise TrainingError(
                    f"backend {value} is not the {own} of the run that is resumed; name another "
                    "folder for the rest with --out"
                )
            raise TrainingError(
                f"{field.name} {value} is not the {own} of the run that is resumed; leave it out"
            )
        steps = asked.steps or self.steps
        if taken is not None and asked.steps:
            steps = taken + asked.steps
        elif taken is not None and steps is not None and taken >= steps:
            raise TrainingError(
                f"the run has taken its {steps} steps; say how many more with --steps"
            )
        return replace(
            self,
            backend=asked.backend or self.backend,
            steps=steps,
            schedule_steps=asked.schedule_steps or self.schedule_steps,
        )
