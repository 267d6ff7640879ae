"""The files of a run's folder, which may be from somebody else: where they are and what they say.

No link in the folder is followed out of it.
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from flaxnets import specs
from flaxnets.edge.files import RECORD, UNFINISHED, read, within
from flaxnets.edge.structure import StructureError, parse

SPEC, RUN, METRICS, WEIGHTS = "spec.json", "run.json", "metrics.jsonl", "model.safetensors"
EXAMPLES, PAGE, CHECKPOINTS = "examples.txt", "report.html", "checkpoints"
FILES = (SPEC, RUN, METRICS, WEIGHTS, EXAMPLES, PAGE, CHECKPOINTS)  # and pictures
# What a process that was killed while it wrote one of these has left.
SWEPT = re.compile(
    rf"\.({'|'.join(map(re.escape, FILES))}|[a-z]+\.png)\.[a-z0-9_]{{8}}{re.escape(UNFINISHED)}"
)

MOST_STEPS = 2**31
Backend = Literal["flax", "torch"]
Count = Annotated[int, Field(ge=0, lt=MOST_STEPS)]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What of an engine has to be the same when its run is resumed.

    Attributes:
        dispatch: steps in one dispatch, and in which form.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    dispatch: (
        tuple[Annotated[int, Field(ge=1, lt=MOST_STEPS)], Literal["single", "scan", "unrolled"]]
        | None
    ) = None


@dataclass(frozen=True, kw_only=True)
class Told:
    """What `run.json` says of a run; a newer version's may say more.

    Attributes:
        name: of the architecture.
        backend: that trained last.
        command: that began the run or resumed it.
        recipe: as `Recipe.to_json` gives it.
        versions: of packages.
        hardware: by name.
        engine: what has to be the same.
        attention: the kernels that were taken.
        time_to_first_step: in seconds.
        resumed: the steps after which it was.
        backends: which one took the steps from which on.
        data: the digest of the data set.
        finished: whether every file is written.
    """

    name: str | None = None
    backend: Backend | None = None
    command: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, str] = field(default_factory=dict)
    engine: Engine = field(default_factory=Engine)
    attention: list[str] = field(default_factory=list)
    time_to_first_step: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    resumed: list[Count] = field(default_factory=list)
    backends: list[tuple[Count, Backend | None]] = field(default_factory=list)
    data: str | None = None
    finished: bool = False


class Metrics(NamedTuple):
    """What `metrics.jsonl` holds.

    Attributes:
        lines: what was measured, each with its `step`.
        damaged: the numbers, from 1, of lines that cannot be read.
    """

    lines: list[dict[str, Any]]
    damaged: list[int]


def spec_of(folder: Path) -> specs.Spec:
    """The network of a run.

    Raises:
        specs.SpecError: a file that is no spec.
        OSError: one that cannot be read.
    """
    try:
        return specs.from_json(read(within(folder, SPEC), RECORD).decode())
    except UnicodeDecodeError:
        raise specs.SpecError(f"{folder / SPEC} is not UTF-8") from None


def told(folder: Path) -> Told:
    """What a run says of itself.

    Raises:
        StructureError: a file that says something else.
        OSError: one that cannot be read.
    """
    return parse(Told, read(within(folder, RUN), RECORD), folder / RUN)


def metrics(folder: Path) -> Metrics:
    """What a run has measured; a last line that is cut off was never whole.

    Raises:
        OSError: a file that cannot be read.
    """
    lines, damaged = [], []
    *whole, cut = read(within(folder, METRICS)).split(b"\n")
    for number, text in enumerate([*whole, cut], 1):
        try:
            line = parse(dict[str, float | None], text, METRICS)
        except StructureError:
            line = {}
        step = line.get("step")
        if step is not None and step.is_integer() and 0 <= step < MOST_STEPS:
            numbers = {name: math.nan if x is None else x for name, x in line.items()}
            lines.append({**numbers, "step": int(step)})
        elif number <= len(whole):
            damaged.append(number)
    return Metrics(lines, damaged)


def sweep(folder: Path) -> None:
    """Remove what a process that was killed while it wrote a file of the run has left."""
    for path in folder.iterdir():
        if SWEPT.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink()
