"""A run between its first step and its last: files, checkpoints, evaluations, signals."""

import contextlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from flaxnets import bridge, data, environment, specs, tasks
from flaxnets.edge.files import atomic, within
from flaxnets.edge.message import some
from flaxnets.edge.structure import StructureError
from flaxnets.experiment import run_folder
from flaxnets.experiment.engine import Engine, Trained
from flaxnets.experiment.recipe import Recipe
from flaxnets.tasks import Evaluation, evaluate
from flaxnets.training.checkpoints import Checkpoints
from flaxnets.training.loop import TrainingError
from flaxnets.training.progress import ProgressLog
from flaxnets.training.tensorboard import TensorBoardLog

SECONDS_BETWEEN_SAVES = 60.0  # where the recipe does not say after how many steps
GIB = 1 << 30  # bytes
MOST_GIB = 1 << 33  # of an address of 63 bits
PARTS = 10  # checkpoints of a run of several processes, whose clocks differ
PROFILED = 20  # steps in a trace


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run computes, and what it leaves besides its figures.

    Attributes:
        platform: of the devices; JAX's own choice if none is given.
        mesh: of the devices, as in "data=4" or "data=2,fsdp=2"; one device if none is given.
        coordinator: host:port of the first of several processes.
        process_id: of this process, from 0.
        num_processes: of the run; what the cluster's environment says where it says so.
        resume: the folder of a run to go on with; in place, unless another is given for the rest
            (--out), which another backend may take.
        profile: write a trace of a few steps, for TensorBoard or Perfetto.
        tensorboard: write event files beside the metrics.
        other_data: go on with a run on data that is not what it was.
        data_limit: GiB that a data set that is read from files may take in memory; 4 if nothing
            is said.
    """

    platform: Literal["cpu", "gpu", "tpu"] | None = None
    mesh: str | None = None
    coordinator: str | None = None
    process_id: int | None = None
    num_processes: int | None = None
    resume: Path | None = None
    profile: bool = False
    tensorboard: bool = False
    other_data: bool = False
    data_limit: float = data.LIMIT / GIB

    def __post_init__(self) -> None:
        if not 0 < self.data_limit <= MOST_GIB:
            raise TrainingError(
                f"data_limit {self.data_limit} is not a positive number of GiB up to {MOST_GIB:,}"
            )


class StoppedError(RuntimeError):
    """A run that was asked to stop and has saved its state; the message is one line.

    Attributes:
        signal: that asked.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def primary() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


class Session:
    """A run between its first step and its last, with the files that it keeps."""

    def __init__(
        self,
        spec: specs.Spec,
        recipe: Recipe,
        out: Path,
        place: Place,
        engine: Engine,
        held: data.Dataset | None,
        told: run_folder.Told | None,
        digest: str,
        began: float,
    ) -> None:
        self.spec, self.recipe, self.out, self.place = spec, recipe, out, place
        self.engine, self.held, self.told, self.began = engine, held, told, began
        self.digest = digest
        self.losses: list[float] = []
        self.evaluated: list[tuple[int, float]] = []
        self.facts: dict[str, Any] = {}
        name, better = tasks.deciding(tasks.of(spec)) or ("", "min")  # of what is never evaluated
        self._deciding = f"eval_{name}", better
        self._signal: int | None = None
        self._saved = self._started = time.perf_counter()
        self._kept: int | None = None  # the step of the newest whole checkpoint in the folder
        self._tracing = False

    def __enter__(self) -> "Session":
        with contextlib.ExitStack() as stack:
            first, lines = self._resume()
            if primary():
                self.out.mkdir(parents=True, exist_ok=True)
                run_folder.sweep(self.out)
            best = self._deciding if self.held else None
            self.checkpoints = stack.enter_context(
                Checkpoints(within(self.out, run_folder.CHECKPOINTS), self.recipe.keep, best)
            )
            if first and self._kept is None:  # what this folder is to be resumed from
                arrays, rest = self.engine.state()
                self.checkpoints.save(first, arrays, {"rest": rest})
                self.checkpoints.wait()
                self._kept = first
            if primary():
                with atomic(self.out / run_folder.SPEC) as file:
                    file.write(self.spec.to_json().encode())
                with atomic(self.out / run_folder.METRICS) as file:
                    file.write("".join(f"{json.dumps(line)}\n" for line in lines).encode())
            resumed = [*self.told.resumed, first] if self.told else []
            self.facts = {
                "name": self.spec.name,
                "backend": self.recipe.backend,
                "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
                "recipe": self.recipe.to_json(),
                "versions": environment.versions(),
                "hardware": environment.hardware(),
                "engine": self.engine.facts(),
                "data": self.digest,
                "resumed": resumed,
                "backends": self._backends(first),
            }
            if self.place.mesh:
                self.facts["hardware"]["mesh"] = self.place.mesh
            self._tell()
            self._logs: list[Callable[[int, dict[str, float]], None]] = []
            if primary():
                self._lines = stack.enter_context(
                    open(self.out / run_folder.METRICS, "ab", buffering=0)
                )
                title = f"{self.spec.name} ({self.recipe.backend})"
                steps = self.recipe.steps or 0
                self._logs.append(stack.enter_context(ProgressLog(title, steps, first=first)))
                if self.place.tensorboard:
                    log = TensorBoardLog(within(self.out, "tensorboard"), first)
                    self._logs.append(stack.enter_context(log))
            stack.enter_context(self._signals())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._tracing:
            jax.profiler.stop_trace()
        self._stack.__exit__(kind, error, trace)

    def _resume(self) -> tuple[int, list[dict[str, Any]]]:
        """Go on from the newest checkpoint; its step, and what was measured up to it."""
        folder = self.place.resume
        if folder is None:
            return 0, []
        if not self.engine.taken:  # else it has taken over what another backend did there
            restore(folder, self.engine)
        first = self.engine.taken
        lines = _measured(folder, first) if first else []
        self._kept = first if first and folder == self.out else None
        assert self.recipe.steps is not None  # as settled
        if first >= self.recipe.steps and self.told and self.told.finished:
            raise TrainingError(f"{folder} has taken its {first} steps; give more with --steps")
        self.losses = [line["loss"] for line in lines if "loss" in line]
        if self.held:
            name, _ = self._deciding
            self.evaluated = [(line["step"], line[name]) for line in lines if name in line]
        return first, lines

    def _backends(self, first: int) -> list[list[Any]]:
        """Which backend took the steps from which on, as [step, backend]."""
        before = self.told and (self.told.backends or [(0, self.told.backend)])
        known = [[*one] for one in before or () if one[0] < first]
        changed = not known or known[-1][1] != self.recipe.backend
        return known + [[first, self.recipe.backend]] * changed

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT ask for an end after the running dispatch."""

        def ask(number: int, _: Any) -> None:
            self._signal = number

        try:
            before = {one: signal.signal(one, ask) for one in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread, which alone hears signals
            before = {}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _stopping(self) -> bool:
        if jax.process_count() > 1:  # which have to agree, and do so where all pause
            return False
        overdue = time.perf_counter() - self._saved > SECONDS_BETWEEN_SAVES
        return self._signal is not None or (overdue and self.recipe.save_every is None)

    def to_the_end(self) -> None:
        """Take the steps that are left, with evaluations and checkpoints between."""
        recipe, engine = self.recipe, self.engine
        assert recipe.steps is not None  # as settled
        save_every = recipe.save_every
        if save_every is None and jax.process_count() > 1:
            save_every = -(-recipe.steps // PARTS)
        while engine.taken < recipe.steps and not self._patience_is_over():
            pauses = [recipe.steps] + [
                engine.taken - engine.taken % every + every
                for every in (save_every, recipe.eval_every)
                if every
            ]
            try:
                engine.advance(min(pauses), self._heard, self._stopping)
            except data.DataError:
                self._save()  # the state is good, an example is not
                raise
            except TrainingError as error:
                self.checkpoints.wait()
                raise TrainingError(f"{error}{self._state_kept()}") from None
            figures = {}
            if recipe.eval_every and engine.taken % recipe.eval_every == 0:
                figures = self._evaluate()
            asked = _agreed(self._signal)
            if (
                figures
                or asked
                or self._stopping()
                or (save_every and engine.taken % save_every == 0)
            ):
                self._save(figures)
            self._obey(asked)
        self._save()
        self.checkpoints.wait()
        if self.evaluated and (best := self.checkpoints.best_step()) not in (None, engine.taken):
            found = self.checkpoints.restore(engine.like(), best)
            assert found is not None  # as it was just named
            engine.load_state(found.arrays, found.about["rest"])

    def _obey(self, asked: int | None) -> None:
        """End where a signal has asked for it, once the state is saved."""
        if asked:
            self.checkpoints.wait()
            raise StoppedError(
                f"stopped by {signal.Signals(asked).name} after step {self.engine.taken}; "
                f"go on with --resume {self.out}",
                asked,
            )

    @property
    def trained(self) -> Trained:
        """The network as it is now."""
        return self.engine.trained()

    def _heard(self, step: int, metrics: dict[str, float]) -> None:
        now = time.perf_counter()
        if "time_to_first_step" not in self.facts:
            self.facts["time_to_first_step"] = round(now - self.began, 3)
            if kernels := self.engine.kernels:
                self.facts["attention"] = sorted(kernels)
            self._tell()
            if self.place.profile:
                jax.profiler.start_trace(within(self.out, "profile"))
                self._tracing, self._traced = True, step + PROFILED
        if self._tracing and step >= self._traced:
            jax.profiler.stop_trace()
            self._tracing = False
        self.losses.append(metrics["loss"])
        self._write({"step": step, **metrics, "seconds": round(now - self._started, 4)})
        for log in self._logs:
            log(step, metrics)

    def _evaluate(self) -> dict[str, float]:
        assert self.held is not None
        step = self.engine.taken
        found = evaluate(self.spec, self.trained.call, self.held).figures
        figures = {
            name.replace("test_", "eval_", 1): value
            for name, value in found.items()
            if "_of_" not in name
        }
        self.evaluated.append((step, figures[self._deciding[0]]))
        self._write({"step": step, **figures})
        for log in self._logs:
            log(step, figures)
        return figures

    def _patience_is_over(self) -> bool:
        if not self.recipe.patience or not self.evaluated:
            return False
        _, direction = self._deciding
        sign = 1 if direction == "max" else -1
        values = [sign * value for _, value in self.evaluated]
        return len(values) - 1 - values.index(max(values)) >= self.recipe.patience

    def _save(self, figures: dict[str, float] | None = None) -> None:
        arrays, rest = self.engine.state()
        if not _finite(arrays):
            self.checkpoints.wait()
            raise TrainingError(
                f"the weights are not finite after step {self.engine.taken}; "
                f"use a smaller learning rate{self._state_kept()}"
            )
        if figures or self.engine.taken != self._kept:
            if primary():
                os.fsync(self._lines.fileno())  # a state outlives the machine, and so its figures
            self.checkpoints.save(self.engine.taken, arrays, {"rest": rest}, figures)
            self._kept = self.engine.taken
        self._saved = time.perf_counter()

    def _state_kept(self) -> str:
        """What there is to go on from, at the end of an error."""
        return "" if self._kept is None else f"; the state after step {self._kept} is kept"

    def _write(self, line: dict[str, Any]) -> None:
        if primary():
            left = f"{json.dumps(line)}\n".encode()
            try:
                while left:  # a disk that is almost full takes a part
                    left = left[self._lines.write(left) :]
            except OSError as error:
                raise OSError(error.errno, error.strerror, self._lines.name) from None

    def _tell(self) -> None:
        if primary():
            with atomic(self.out / run_folder.RUN) as file:
                file.write(json.dumps(self.facts, indent=2).encode())

    def finish(self, found: Evaluation) -> None:
        """Write the final figures and weights, unless a signal came meanwhile."""
        self._obey(_agreed(self._signal))
        self._write({"step": self.engine.taken, **found.figures})
        if primary():
            bridge.write(self.trained.weights, self.out / run_folder.WEIGHTS)
            if found.examples:
                with atomic(self.out / run_folder.EXAMPLES) as file:
                    file.write("".join(f"{line}\n" for line in found.examples).encode())

    def finished(self) -> None:
        """Note that every file is written, so that there is nothing left to resume."""
        self.facts["finished"] = True
        self._tell()


def restore(folder: Path, engine: Engine) -> None:
    """Let an engine go on from the newest checkpoint of a run, if there is one.

    Raises:
        TrainingError: a run whose checkpoints are gone, or say of the engine what cannot be.
    """
    there = within(folder, run_folder.CHECKPOINTS)
    with Checkpoints(there, reading=True) as checkpoints:
        found = checkpoints.restore(engine.like())
    if found is not None:
        try:
            engine.load_state(found.arrays, found.about["rest"])
        except (KeyError, StructureError) as error:
            raise TrainingError(f"{there}: step {found.step}: {error}") from None
    elif not there.exists() and (folder / run_folder.METRICS).exists():
        raise TrainingError(f"{there} is gone; begin anew in another folder")


def newest(folder: Path) -> int:
    """The step of a run's newest checkpoint."""
    with Checkpoints(within(folder, run_folder.CHECKPOINTS), reading=True) as checkpoints:
        return max(checkpoints.steps()[:1], default=0)


def _measured(folder: Path, until: int) -> list[dict[str, Any]]:
    """What a run had measured up to a step, without final figures."""
    found = run_folder.metrics(folder)
    if found.damaged and primary():
        path, lines = folder / run_folder.METRICS, some(found.damaged)
        print(f"{path} is damaged and read without its lines {lines}", file=sys.stderr)
    return [
        line
        for line in found.lines
        if line["step"] <= until and not any(name.startswith("test_") for name in line)
    ]


def _agreed(signal_: int | None) -> int | None:
    """The signal that any of the processes has heard."""
    if jax.process_count() == 1:
        return signal_
    from jax.experimental import multihost_utils

    return int(multihost_utils.process_allgather(np.array(signal_ or 0)).max()) or None


@jax.jit
def _all_finite(arrays: Any) -> jax.Array:
    real = [x for x in jax.tree.leaves(arrays) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in real]))


def _finite(arrays: Any) -> bool:
    if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(arrays)):
        return bool(_all_finite(arrays))
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(arrays))
