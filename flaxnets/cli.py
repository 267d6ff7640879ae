"""The command line: list, show, train, parity, convert, translate, bench, demo, doctor.

Options are generated from the dataclasses: a network's spec fields are options of the
commands that build it. Wrong input gives one line on standard error and exit code 2.
"""

import argparse
import contextlib
import dataclasses
import io
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

# Of every program that comes from the compilation cache, XLA on a CPU complains that the machine
# lacks "prefer-no-gather", which is a preference and not a feature; what is fatal is still said.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import tyro
from rich.console import Console
from rich.progress import Progress

from flaxnets import __version__, environment, specs, tasks
from flaxnets.bridge import BridgeError
from flaxnets.data import DataError
from flaxnets.edge.message import printable
from flaxnets.edge.process import tidied
from flaxnets.experiment.recipe import Recipe
from flaxnets.experiment.run import train
from flaxnets.experiment.session import Place, StoppedError
from flaxnets.training import compilation_cache
from flaxnets.training.checkpoints import CheckpointError
from flaxnets.training.loop import TrainingError
from flaxnets.training.mesh import MeshError, join

USAGE = """usage: flaxnets COMMAND [options]

  list                     the architectures
  show NAME                a network's weights under both names, and its cost
  train NAME               train a network; writes metrics, checkpoints, weights, report.html
  train NAME --resume RUN  go on with a run that ended or was stopped
  train NAME --resume RUN --backend torch --out NEW
                           go on with it in the other backend
  parity [NAMES ...]       prove the twins equal; exit code 1 if one is not
  parity --mutations       prove that the checks catch planted faults
  convert SRC DST --arch NAME
                           a .pt or .safetensors file, checked, as .safetensors
  translate FILE.py:CLASS --input 1,3,32,32
                           a torch module of your own as NNX source, proved equal
  bench [NAMES ...]        time a training step beside torch, torch.compile, nnx.jit and Keras
  demo                     train LeNet in JAX, prove it in PyTorch, write a report
  doctor                   try whether jax and torch compute what they should here

flaxnets COMMAND --help lists a command's options."""


SpecT = TypeVar("SpecT", bound=specs.Spec)
Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]


@dataclass(frozen=True)
class List:
    """Print a table of the architectures."""

    def run(self) -> int:
        """Exit code 0."""
        from flaxnets.summary import list_architectures

        _console().print(list_architectures())
        return 0


@dataclass(frozen=True)
class Show(Generic[SpecT]):
    """Print a network's weights: Flax path, torch key, shapes, parameters, FLOPs."""

    name: Name
    """The architecture."""
    spec: tyro.conf.OmitArgPrefixes[SpecT]
    variant: str | None = None
    """A named size to start from."""

    def run(self) -> int:
        """Exit code 0."""
        from flaxnets.summary import show

        _console().print(show(self.spec))
        return 0


@dataclass(frozen=True)
class Train(Generic[SpecT]):
    """Train a network."""

    name: Name
    """The architecture."""
    spec: tyro.conf.OmitArgPrefixes[SpecT]
    recipe: tyro.conf.OmitArgPrefixes[Recipe] = field(default_factory=Recipe)
    place: tyro.conf.OmitArgPrefixes[Place] = field(default_factory=Place)
    variant: str | None = None
    """A named size to start from."""
    out: Path | None = None
    """A new or empty folder for the run's files; by default that of the run that is resumed, or
    one under runs/."""

    def run(self) -> int:
        """Exit code 0."""
        if self.name != self.spec.name:
            raise specs.SpecError(f"write the architecture first: flaxnets train {self.name} ...")
        if self.recipe.backend == "torch" and self.recipe.steps_per_dispatch:
            raise TrainingError("steps_per_dispatch is of backend flax; leave it out")
        place = self.place
        if place.platform:
            environment.choose(place.platform)
        if (place.coordinator, place.process_id, place.num_processes) != (None, None, None):
            if not (self.out or place.resume):
                raise specs.SpecError("several processes write to one folder; name it with --out")
            join(place.coordinator, place.process_id, place.num_processes)
        small = self.spec.on_cpu
        large = small and not place.resume and self.spec == specs.make(self.name)
        if large and jax.default_backend() == "cpu":
            _console().print(f"hint: on a CPU, --variant {small} is trained in minutes")
        compilation_cache.enable()
        fresh = Path("runs") / f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        outcome = train(self.spec, self.recipe, self.out or place.resume or fresh, place)
        console = _console()
        for name, value in outcome.figures.items():
            share = tasks.is_share(name.removeprefix("test_"))
            shown = f"{value:.2%}" if share else f"{value:.5g}"
            console.print(f"{name.replace('_', ' ')} {shown}", highlight=False)
        for example in outcome.examples:
            console.print(f"  {example}", highlight=False, markup=False)
        if outcome.step < len(outcome.losses):
            steps = len(outcome.losses)
            best = f"these are the best weights, after step {outcome.step} of {steps}"
            console.print(best, highlight=False)
        console.print(f"wrote {outcome.out}", highlight=False)
        return 0


@dataclass(frozen=True)
class Parity:
    """Prove that the Flax and the torch twins are the same functions."""

    names: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAMES ...]")
    ] = ()
    """The architectures; all if none is given."""
    checks: tuple[str, ...] | None = None
    """The checks to make; all if none is given."""
    json: Path | None = None
    """A file for the results as JSON."""
    html: Path | None = None
    """A file for the results as a page."""
    junit: Path | None = None
    """A file for the results as JUnit's XML."""
    platform: Literal["cpu", "gpu", "tpu"] | None = None
    """Where the JAX side runs; JAX's own choice if none is given."""
    mutations: bool = False
    """Plant faults in the Flax side instead, and require that the checks catch each."""

    def run(self) -> int:
        """Exit code 0 if all checks passed, or all faults were caught, 1 if not."""
        from flaxnets import parity
        from flaxnets.parity import device

        _some(self.checks, "--checks")
        for unknown in set(self.checks or ()) - set(parity.CHECKS):
            raise specs.SpecError(f"check {unknown!r} is unknown; use {', '.join(parity.CHECKS)}")
        for file in filter(None, (self.json, self.html, self.junit)):
            _writable(file)
        if self.mutations and (self.names or self.checks or self.html or self.junit):
            raise specs.SpecError("--mutations goes with --json and --platform only")
        with device.on(self.platform):
            return self._faults() if self.mutations else self._checks()

    def _checks(self) -> int:
        from flaxnets import parity

        pairs = [
            (name, variant)
            for name in self.names or specs.names()
            for variant in parity.variants(name)
        ]
        rows = []
        console = _console()
        with _progress(console) as progress:
            bar = progress.add_task("parity", total=len(pairs))
            for name, variant in pairs:
                progress.update(bar, description=f"{name} {variant}")
                rows += parity.check_architecture(name, variant, self.checks).rows
                progress.advance(bar)
        report = parity.Report(rows)
        console.print(report.to_table())
        console.print(report.slowest())
        for file, text in (
            (self.json, report.to_json),
            (self.html, report.to_html),
            (self.junit, report.to_junit),
        ):
            if file:
                _write(file, text())
        return 0 if report.passed else 1

    def _faults(self) -> int:
        from rich.markup import escape
        from rich.table import Table

        from flaxnets.parity.mutations import run_all

        console = _console()
        with _progress(console) as progress:
            outcomes = run_all(lambda faults: progress.track(faults, description="mutations"))
        table = Table(title="planted faults")
        for column in ("fault", "caught", "by", "place", "cause"):
            table.add_column(column)
        for outcome in outcomes:
            mark = "[green]yes[/]" if outcome.caught else "[bold red]NO[/]"
            told = map(escape, (outcome.by, outcome.place, outcome.cause))
            table.add_row(escape(outcome.name), mark, *told)
        console.print(table)
        caught = sum(outcome.caught for outcome in outcomes)
        score = f"{caught} of {len(outcomes)}"
        console.print(f"{score} caught", highlight=False)
        if self.json:
            fields = ("name", "caught", "by", "place", "cause")
            found = [{name: getattr(outcome, name) for name in fields} for outcome in outcomes]
            _write(self.json, json.dumps({"mutations": found, "score": score}, indent=2))
        return 0 if 0 < len(outcomes) == caught else 1


@dataclass(frozen=True)
class Convert(Generic[SpecT]):
    """Check a file of weights against a network and write it as safetensors."""

    src: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """A .safetensors file, or a .pt file of a state_dict, which is read without running code."""
    dst: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """The .safetensors file to write, with torch's names and layouts."""
    arch: str
    """The architecture."""
    spec: tyro.conf.OmitArgPrefixes[SpecT]
    variant: str | None = None
    """A named size to start from."""
    verbose: bool = False
    """List all that does not fit, and not the first ten."""

    def run(self) -> int:
        """Exit code 0."""
        from flax import nnx

        import flaxnets
        from flaxnets import bridge, summary

        if self.dst.suffix != ".safetensors":
            raise BridgeError(f"{self.dst} does not end in .safetensors")
        if self.src.suffix == ".safetensors":
            state: Any = bridge.read(self.src)
        else:
            from torch_ref import arrays

            try:
                state = arrays.read(self.src)
            except arrays.CheckpointError as error:
                raise BridgeError(str(error)) from None
        summary.require_memory(self.spec, copies=1)
        model = nnx.eval_shape(lambda: flaxnets.build(self.spec))  # no weight is drawn
        try:
            bridge.load_state_dict(model, state)
        except BridgeError as error:
            for finding in error.findings if self.verbose else ():
                print(finding, file=sys.stderr)
            raise BridgeError(f"{self.src}: {error}", error.findings) from None
        with tidied():
            bridge.save(model, self.dst)
        _console().print(f"wrote {self.dst}: {len(state)} tensors", highlight=False)
        return 0


@dataclass(frozen=True)
class Translate:
    """Write the Flax twin of a torch module of your own as NNX source, and prove both equal."""

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.py:CLASS")]
    """The file, which is run, and the class in it."""
    input: tuple[str, ...]
    """A shape for each input, in torch's layout: 1,3,32,32, or 2,7:int<50 for integers below 50."""
    args: tuple[str, ...] = ()
    """The class's arguments, as Python literals."""
    kwargs: tuple[str, ...] = ()
    """Its keyword arguments: num_classes=10."""
    out: Path | None = None
    """A file for the source; standard output if none is given."""

    def run(self) -> int:
        """Exit code 0."""
        from flaxnets.swap.twin.command import source_of
        from flaxnets.swap.twin.problems import TranslationError

        _some(self.input, "--input")
        if self.out:
            _writable(self.out)
        try:
            source, constants = source_of(self.target, self.input, self.args, self.kwargs)
        except TranslationError as error:
            raise specs.SpecError(str(error)) from None
        if not self.out:
            if constants:
                names = ", ".join(constants)
                raise specs.SpecError(f"{names}: too large to be written out; use --out")
            print(source, end="")
            return 0
        if constants:
            from flaxnets import bridge

            with tidied():
                bridge.write(constants, self.out.with_suffix(".safetensors"))
        _write(self.out, source)
        _console().print(f"wrote {self.out}", highlight=False)
        return 0


@dataclass(frozen=True)
class Bench:
    """Time a training step beside torch, torch.compile, nnx.jit and Keras, on the CPU."""

    names: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAMES ...]")
    ] = ()
    """Architectures, and "overhead" for the cost of our step itself; all if none is given."""
    contenders: tuple[str, ...] | None = None
    """Of flaxnets, torch eager, torch.compile, nnx.jit and keras; all if none is given."""
    json: Path | None = None
    """A file for the results as JSON."""
    html: Path | None = None
    """A file for the results as a page."""

    def run(self) -> int:
        """Exit code 0 if our own step was timed on every network, 1 if not."""
        from flaxnets.bench import bench
        from flaxnets.bench.page import render

        for file in filter(None, (self.json, self.html)):
            _writable(file)
        _some(self.contenders, "--contenders")
        console = _console()
        with _progress(console) as progress:
            bar = progress.add_task("bench", total=None)
            with tidied():
                result = bench(
                    self.names,
                    self.contenders or (),
                    lambda name, doing: progress.update(bar, description=f"{name}: {doing}"),
                )
        console.print(result.to_table())
        for line in result.summary():
            console.print(line, highlight=False)
        if self.json:
            _write(self.json, result.to_json())
        if self.html:
            _write(self.html, render(result))
        return 0 if result.complete else 1


@dataclass(frozen=True)
class Demo:
    """Train LeNet on digits in JAX, carry it to PyTorch, prove both equal, write a report."""

    out: Path = Path("runs/demo")
    """The folder for report and run; what an earlier demo left there is replaced."""

    def run(self) -> int:
        """Exit code 0 if the twins are equal, 1 if not."""
        from flaxnets.experiment.demo import demo

        return demo(self.out, _console())


@dataclass(frozen=True)
class Doctor:
    """Try small computations with known results, and say what to do about wrong ones."""

    json: Path | None = None
    """A file for the findings as JSON."""

    def run(self) -> int:
        """Exit code 0 if nothing is wrong, 1 if something is."""
        from rich.markup import escape

        from flaxnets import doctor

        if self.json:
            _writable(self.json)
        console = _console()

        def heard(finding: doctor.Finding) -> None:
            colour = {"ok": "green", "wrong": "bold red"}.get(finding.state, "dim")
            console.print(
                f"[{colour}]{finding.state:8}[/] {finding.name}  {escape(finding.message)}",
                highlight=False,
                soft_wrap=True,
            )
            if finding.mend:
                console.print(f"         {escape(finding.mend)}", highlight=False, soft_wrap=True)
            progress.advance(bar)

        with _progress(console) as progress:
            bar = progress.add_task("doctor", total=len(doctor.CANARIES))
            diagnosis = doctor.examine(heard)
        for name, value in diagnosis.facts.items():
            console.print(f"{name:13} {escape(value)}", highlight=False, soft_wrap=True)
        for hint in diagnosis.hints:
            console.print(f"hint: {escape(hint)}", highlight=False, soft_wrap=True)
        if self.json:
            _write(self.json, diagnosis.to_json())
        return 0 if diagnosis.healthy else 1


COMMANDS: dict[str, Any] = {
    "list": List,
    "show": Show,
    "train": Train,
    "parity": Parity,
    "convert": Convert,
    "translate": Translate,
    "bench": Bench,
    "demo": Demo,
    "doctor": Doctor,
}


# What is wrong with what was asked for, not with this library.
EXPECTED = (
    specs.SpecError,
    BridgeError,
    CheckpointError,
    DataError,
    MeshError,
    TrainingError,
    OSError,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 2 for wrong input, else the command's own.

    >>> main(["--version"])
    flaxnets 0.1.0
    0
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()  # a full disk behind it shows here
        return code
    except BrokenPipeError:  # as in `flaxnets list | head -1`
        return 128 + signal.SIGPIPE
    except StoppedError as stop:
        _fail(stop)
        return 128 + stop.signal  # as a shell says of a command that a signal ended
    except EXPECTED as error:
        return _fail(error)
    except MemoryError as error:
        return _fail(f"the memory does not suffice: {error}")
    except (RuntimeError, AssertionError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
            return _fail(f"the memory does not suffice: {error}")
        if not (line := environment.absent()):
            raise
        return _fail(line)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "matplotlib"):
            raise
        extra = "torch" if error.name == "torch" else "data"
        return _fail(f"{error.name} is not installed; pip install 'flaxnets[{extra}]'")


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"flaxnets {__version__}")
        return 0
    return _parse(arguments[0], arguments[1:]).run()


def _fail(message: object) -> int:
    said = " ".join(str(message).split())
    print("flaxnets:", printable(said, len(said)), file=sys.stderr)
    return 2


def _parse(command: str, arguments: list[str]) -> Any:
    if command not in COMMANDS:
        raise specs.SpecError(f"command {command!r} is unknown; use {', '.join(COMMANDS)}")
    for option, value in zip(["", *arguments], arguments, strict=False):
        if not value or (value.startswith("--") and value.endswith("=")):
            raise specs.SpecError(f"{option or command} {value!r}: an argument is empty")
    kind: Any = COMMANDS[command]
    prog = f"flaxnets {command}"
    if "spec" not in kind.__dataclass_fields__:
        return _tyro(kind, arguments, prog)
    sketch = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    sketch.add_argument("--arch")
    sketch.add_argument("--variant")
    try:
        known, rest = sketch.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise specs.SpecError(f"{error} (see {prog} --help)") from None
    words = [word for word in rest if not word.startswith("-")]
    named = [word for word in words if word in specs.names()] or words
    name = known.arch if command == "convert" else next(iter(named), None)
    if name is None and {"-h", "--help"} & set(arguments):
        name = specs.names()[0]  # whose fields stand for any network's
    if name is None:
        raise specs.SpecError(f"which architecture? use one of {', '.join(specs.names())}")
    start = specs.make(name, known.variant)
    required = {
        own.name: tyro.MISSING
        for own in dataclasses.fields(kind)
        if own.default is own.default_factory is dataclasses.MISSING and own.name != "spec"
    }
    return _tyro(kind[type(start)], arguments, prog, default=kind(**required, spec=start))


def _tyro(kind: Any, arguments: list[str], prog: str, **more: Any) -> Any:
    """Tyro's parser, whose boxes of many lines become one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, args=arguments, prog=prog, **more)
    except SystemExit as stop:
        if not stop.code:
            raise
        lines = [line.strip("│╭╮╰╯─ ") for line in complaint.getvalue().splitlines()]
        below = itertools.dropwhile(_is_rule, lines[1:])  # which ASCII has under the title, too
        said = itertools.takewhile(lambda line: not _is_rule(line), below)
        message = " ".join(said).removeprefix("Error parsing spec: ")
        raise specs.SpecError(f"{message} (see {prog} --help)") from None


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _is_rule(line: str) -> bool:
    return not line.strip("-")


def _console() -> Console:
    console = _Console()
    # Off a terminal a table is as wide as its text, so that no column is cut.
    return console if console.is_terminal else _Console(width=200)


def _progress(console: Console) -> Progress:
    return Progress(console=console, disable=not console.is_terminal)


def _some(values: tuple[str, ...] | None, option: str) -> None:
    if values == ():
        raise specs.SpecError(f"{option} has no value; give one, or leave it out")


def _writable(path: Path) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is no folder to write {path.name} to")
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no plain file"
        raise FileExistsError(f"{path} is {kind}, not a file to write to")


def _write(path: Path, text: str) -> None:
    from flaxnets.edge.files import atomic

    with tidied(), atomic(Path(os.path.realpath(path))) as file:  # a link of the user's own
        file.write(text.encode())
