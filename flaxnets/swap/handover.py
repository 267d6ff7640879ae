"""A training state in a form of neither backend: a folder of safetensors and JSON.

`model.safetensors` holds weights and statistics, `average.safetensors` an average of the weights
where one is kept, `optimizer.safetensors` the slots of torch.optim by parameter, such as
`conv1.weight.exp_avg` (`optimizer.PART.safetensors` where an optimizer moves a part of the
model only): torch's names and layouts everywhere. `handover.json` says what they mean: steps
taken, kind and hyper-parameters of the optimizers, the state of their schedules, the seed of the
random numbers, digests of the files. The folder is there as a whole or not at all.
"""

import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, FiniteFloat

from flaxnets import bridge
from flaxnets.edge import files
from flaxnets.edge.files import atomic, sync
from flaxnets.edge.message import printable, some
from flaxnets.edge.structure import StructureError, parse

FORMAT = 1
RECORD = "handover.json"
WEIGHTS, AVERAGE = "model.safetensors", "average.safetensors"
MOST = sys.float_info.max
MOST_STEPS = 2**31 - 1  # which JAX counts in 32 bits
NUMBERS = ("step", "mu_product")  # slots that are one number, whatever the parameter's shape
FAMILY = {"adamw": "adam"}  # optimizers that remember the same
# Of torch's param_groups: how a step is computed, which changes nothing but rounding, and what a
# schedule sets.
COMPUTED = ("foreach", "fused", "capturable", "differentiable")
FREE = ("names", "lr", *COMPUTED)


class HandoverError(bridge.BridgeError):
    """A handover that cannot be written, read or gone on from; one line says all."""


@dataclass(frozen=True, kw_only=True)
class OptimizerState:
    """What an optimizer knows, with the schedule of its rate.

    Attributes:
        name: torch's class in lower case.
        step: how many steps it has taken.
        scheduled: how many steps torch's scheduler has taken; those of the optimizer in Flax.
        slots: arrays by the name of their parameter and torch's of the slot, as "w.exp_avg".
        groups: torch's `param_groups` with `names` in place of `params`; empty if unknown.
        plateau: what a ReduceLROnPlateau remembers; None of any other schedule.
    """

    name: str
    step: int
    scheduled: int
    slots: Mapping[str, np.ndarray] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)
    plateau: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Handover:
    """A training state between two steps.

    Attributes:
        step: how many were taken.
        weights: of the model, its statistics among them, by torch's names.
        optimizers: by the part of the model that each moves, "" for all of it.
        seed: of the random numbers: those of step s, from 0, come of the key
            `jax.random.fold_in(jax.random.key(seed), s)`, in torch of `torch_ref.random`'s.
        average: of the weights, by torch's names; None where none is kept.
        run: spec and recipe of the run, where it is one of `flaxnets train`.
    """

    step: int
    weights: Mapping[str, np.ndarray]
    optimizers: Mapping[str, OptimizerState]
    seed: int | None = None
    average: Mapping[str, np.ndarray] | None = None
    run: dict[str, Any] | None = None


# The record as JSON holds it.


def _as_group(group: dict[str, Any]) -> dict[str, Any]:
    names, rate = group.get("names"), group.get("lr", 0)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError('should have "names", a list of texts')
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not -MOST <= rate <= MOST:
        raise ValueError('should have a finite number as "lr"')
    return group


STRICT = ConfigDict(extra="forbid")
Count = Annotated[int, Field(ge=0, le=MOST_STEPS)]
Part = Annotated[str, Field(pattern=r"^[^/\\\x00]*$")]  # a part of a file's name


@dataclass(frozen=True, kw_only=True)
class _Plateau:
    __pydantic_config__: ClassVar = STRICT

    best: FiniteFloat | None
    num_bad_epochs: Count
    cooldown_counter: Count
    lr: FiniteFloat | Annotated[list[FiniteFloat], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class _Optimizer:
    __pydantic_config__: ClassVar = STRICT

    name: str
    step: Count
    scheduled: Count
    groups: list[Annotated[dict[str, Any], AfterValidator(_as_group)]]
    plateau: _Plateau | None


@dataclass(frozen=True, kw_only=True)
class _Format:
    format: int


@dataclass(frozen=True, kw_only=True)
class _Record:
    __pydantic_config__: ClassVar = STRICT

    format: int
    step: Count
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None
    optimizers: dict[Part, _Optimizer]
    run: dict[str, Any] | None
    digests: dict[str, str]


def write(folder: str | os.PathLike, state: Handover) -> None:
    """Write a handover, which is there as a whole when this returns and not at all before.

    Raises:
        HandoverError: a folder that holds something, an array or option that is not finite, a
            number out of range.
        OSError: files that cannot be written.

    >>> folder = Path(tempfile.mkdtemp()) / "handover"
    >>> write(folder, Handover(step=3, weights={"w": np.ones(2)}, optimizers={}))
    >>> read(folder).step, sorted(path.name for path in folder.iterdir())
    (3, ['handover.json', 'model.safetensors'])
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise HandoverError(f"{folder} is there and not empty; choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o777 & ~umask)
        _fill(beside, state)
        os.rename(beside, folder)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, bridge.BridgeError):
            raise HandoverError(str(error).replace(f"{beside}", f"{folder}")) from None
        raise
    sync(folder.parent)


def _fill(folder: Path, state: Handover) -> None:
    arrays = {WEIGHTS: state.weights}
    if state.average is not None:
        arrays[AVERAGE] = state.average
    arrays |= {_file_of(part): own.slots for part, own in state.optimizers.items()}
    for name, values in arrays.items():
        bridge.write(values, folder / name)
    record = {
        "format": FORMAT,
        "step": state.step,
        "seed": state.seed,
        "optimizers": {
            part: {name: value for name, value in vars(own).items() if name != "slots"}
            for part, own in state.optimizers.items()
        },
        "run": state.run,
        "digests": {name: _digest(folder / name) for name in arrays},
    }
    try:
        content = json.dumps(record, indent=2, allow_nan=False).encode()
        parse(_Record, content, folder / RECORD)
    except ValueError as error:
        raise HandoverError(str(error)) from None
    with atomic(folder / RECORD) as file:
        file.write(content)


def read(folder: str | os.PathLike) -> Handover:
    """A handover, verified.

    Raises:
        HandoverError: a folder that is none, or a broken one, with what is wrong.
    """
    folder = Path(folder)
    path = folder / RECORD
    try:
        content = files.read(files.within(folder, RECORD), files.RECORD)
    except OSError as error:
        raise HandoverError(f"{folder} holds no handover: {RECORD}: {error.strerror}") from None
    try:
        if (known := parse(_Format, content, path).format) != FORMAT:
            raise HandoverError(
                f"{path} has format {printable(known)}; this version reads {FORMAT}"
            )
        record = parse(_Record, content, path)
    except StructureError as error:
        raise HandoverError(str(error)) from None
    wanted = [WEIGHTS, *map(_file_of, record.optimizers)]
    if missing := {*wanted} - record.digests.keys():
        raise HandoverError(f"{path} lacks the digests of {some(sorted(missing))}")
    if more := record.digests.keys() - {*wanted, AVERAGE}:
        raise HandoverError(f"{path} has digests of {some(sorted(more))}, which it says nothing of")
    return Handover(
        step=record.step,
        weights=_arrays(folder, record, WEIGHTS),
        optimizers={
            part: OptimizerState(slots=_arrays(folder, record, _file_of(part)), **asdict(own))
            for part, own in record.optimizers.items()
        },
        seed=record.seed,
        average=_arrays(folder, record, AVERAGE) if AVERAGE in record.digests else None,
        run=record.run,
    )


def _arrays(folder: Path, record: _Record, name: str) -> dict[str, np.ndarray]:
    path = folder / name
    try:
        if _digest(files.within(folder, name)) != record.digests[name]:
            raise HandoverError(f"{printable(path)} is not as it was written (another digest)")
        return bridge.read(path)
    except OSError as error:
        raise HandoverError(f"{printable(path)} cannot be read: {error.strerror}") from None
    except bridge.BridgeError as error:
        raise HandoverError(str(error)) from None


def _file_of(part: str) -> str:
    return f"optimizer.{part}.safetensors" if part else "optimizer.safetensors"


def _digest(path: Path) -> str:
    with files.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


# What both sides ask of a state that they are to go on from.


def step_findings(step: int) -> list[str]:
    """A number of steps that no run takes.

    >>> step_findings(-1)
    ['step -1 is not between 0 and 2147483647']
    """
    within = 0 <= step <= MOST_STEPS
    return [] if within else [f"step {printable(step)} is not between 0 and {MOST_STEPS}"]


def part_findings(found: Handover, parts: Mapping[str, Any]) -> list[str]:
    """Optimizers that are missing, and such that nobody asks for."""

    def said(part: str) -> str:
        return f"of part '{printable(part)}'" if part else "of the whole model"

    return [
        *(f"missing optimizer {said(part)}" for part in parts.keys() - found.optimizers.keys()),
        *(f"unexpected optimizer {said(part)}" for part in found.optimizers.keys() - parts.keys()),
    ]


def number_findings(told: OptimizerState) -> list[str]:
    """Slots that have to be one real number and are not, and steps that are no count.

    >>> slots = {"w.step": np.ones(2), "v.step": np.array(1.5)}
    >>> number_findings(OptimizerState(name="adam", step=2, scheduled=2, slots=slots))
    ['step of w has shape (2,), not ()', 'step 1.5 is no count']
    """
    findings, steps = step_findings(told.step), set()
    for label, value in told.slots.items():
        name, _, slot = label.rpartition(".")
        if slot not in NUMBERS:
            continue
        if value.shape:
            findings.append(f"{slot} of {name} has shape {value.shape}, not ()")
        elif value.dtype.kind != "f":
            findings.append(f"{slot} of {name} has dtype {value.dtype}, which is not real")
        elif slot == "step":
            steps.add(float(value))
    findings += [
        f"step {step:g} is no count"
        for step in steps
        if not step.is_integer() or step_findings(int(step))
    ]
    # Slots hold their steps in float32, which has not every count.
    if not findings and steps and max(steps) not in (told.step, np.float32(told.step)):
        findings.append(f"the slots are after {max(steps):g} steps, not {told.step}")
    return findings


def kind_findings(name: str, found: OptimizerState) -> list[str]:
    """An optimizer that remembers something else.

    >>> kind_findings("adamw", OptimizerState(name="sgd", step=1, scheduled=1))
    ['the optimizer is adamw, not sgd']
    """
    same = FAMILY.get(name, name) == FAMILY.get(found.name, found.name)
    return [] if same else [f"the optimizer is {name}, not {printable(found.name)}"]


def option_findings(
    options: Mapping[str, Any], group: Mapping[str, Any], free: tuple[str, ...] = FREE
) -> list[str]:
    """Hyper-parameters that differ, of those that both sides name.

    >>> option_findings({"lr": 0.1, "eps": 1e-4}, {"lr": 0.2, "eps": 1e-8})
    ['eps is 0.0001, not 1e-08']
    """
    given, known = json_of(options), group
    return [
        f"{name} is {given[name]}, not {printable(known[name])}"
        for name in given.keys() & known.keys() - {*free}
        if given[name] != known[name]
    ]


def json_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters as JSON gives them back: lists for tuples, numbers for arrays of one.

    >>> json_of({"betas": (0.9, np.float32(0.5)), "nesterov": True, "eps": None})
    {'betas': [0.9, 0.5], 'nesterov': True, 'eps': None}
    """

    def plain(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        return float(value)

    return {name: plain(value) for name, value in options.items()}


def plateau_of(best: float, bad: int, cooldown: int, rate: float | list[float]) -> dict[str, Any]:
    """What a ReduceLROnPlateau remembers; nothing yet is None, which JSON has, unlike infinity."""
    return {
        "best": best if math.isfinite(best) else None,
        "num_bad_epochs": bad,
        "cooldown_counter": cooldown,
        "lr": rate,
    }


def rates_of(told: OptimizerState) -> list[float]:
    """The rates that a ReduceLROnPlateau has set, of one group of parameters or of each."""
    rates = (told.plateau or {"lr": []})["lr"]
    return rates if isinstance(rates, list) else [rates]


def plateau_findings(has: bool, told: OptimizerState) -> list[str]:
    """A ReduceLROnPlateau on one side only.

    >>> plateau_findings(True, OptimizerState(name="sgd", step=1, scheduled=1))
    ['a plateau is missing, whose schedule goes on here']
    """
    if has == (told.plateau is not None):
        return []
    where = "missing, whose schedule goes on here" if has else "unexpected; give its schedule"
    return [f"a plateau is {where}"]


def raise_for(findings: list[str]) -> None:
    """One error with all findings, if there are any."""
    if findings:
        raise HandoverError("does not fit: " + some(sorted(findings), "; "))
