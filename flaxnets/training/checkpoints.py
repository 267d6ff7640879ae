"""Checkpoints of a run: one atomic whole each, verified leaf by leaf when it is restored.

Orbax writes the arrays, asynchronously and from every process, into a temporary folder. A
record of what they mean (step, figures, shape, dtype and digest of every leaf, and what the
run says about itself) joins them there, everything is synced, and one rename makes it a
checkpoint: a folder `NUMBER-step-STEP`, numbered in the order of saving.
"""

import contextlib
import fcntl
import json
import logging
import math
import os
import re
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import jax
import numpy as np
import tensorstore
from jax.experimental import multihost_utils

from flaxnets.edge.files import atomic, sync
from flaxnets.edge.message import printable
from flaxnets.training.digest import digests
from flaxnets.training.record import (
    FORMAT,
    BrokenError,
    CheckpointError,
    Record,
    kind_of,
    named,
    reason_of,
    require_same,
    sealed,
    some,
    unsealed,
)

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

RECORD = "record.json"
LOCK = ".lock"
REMOVING = ".removing-"
UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of a folder that Orbax has not renamed yet
NAME = re.compile(r"(\d{1,9})-step-(\d{1,10})")
MOST_STEPS = 2**31
SWEPT = re.compile(rf"{re.escape(REMOVING)}{NAME.pattern}|{NAME.pattern}{re.escape(UNFINISHED)}.*")


class Restored(NamedTuple):
    """A checkpoint that was found whole.

    Attributes:
        step: as it was saved.
        arrays: the pytree, on the devices that `like` asked for.
        about: what the run said about itself.
        figures: by name, as they were saved.
    """

    step: int
    arrays: Any
    about: dict[str, Any]
    figures: dict[str, float]


class _Saved(NamedTuple):
    """A committed checkpoint; the number counts saves, so that the greatest is the newest."""

    number: int
    step: int

    @property
    def name(self) -> str:
        return f"{self.number:06d}-step-{self.step}"


class Checkpoints:
    """The checkpoints of one run in one folder, which this object alone may write to.

    Args:
        folder: made where it is missing; what interrupted saves left there is removed.
        keep: how many of the newest checkpoints stay.
        best: a figure, and whether its least or its greatest value is best. The checkpoint
            with the best one stays in addition.
        reading: leave the folder, which may be missing or of somebody else, as it is.

    Raises:
        CheckpointError: a folder that cannot be written, or that another run is using.

    Of several processes all must make the same calls, on a folder that all of them see.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with Checkpoints(folder) as checkpoints:
    ...     checkpoints.save(7, {"w": np.ones(3, np.float32)}, {"seed": 1})
    >>> with Checkpoints(folder) as checkpoints:
    ...     found = checkpoints.restore({"w": np.zeros(3, np.float32)})
    >>> found.step, found.arrays["w"].tolist(), found.about
    (7, [1.0, 1.0, 1.0], {'seed': 1})
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        keep: int = 3,
        best: tuple[str, Literal["min", "max"]] | None = None,
        reading: bool = False,
    ):
        if keep < 1:
            raise ValueError(f"keep is {keep}; keep at least 1 checkpoint")
        self.folder = Path(folder).absolute()
        self._keep, self._best = keep, best
        self._broken: set[_Saved] = set()
        self._records: dict[_Saved, Record] = {}
        self._saving: tuple[Path, dict[str, Any]] | None = None
        self._lock: int | None = None
        self._primary = jax.process_index() == 0
        self._checkpointer: ocp.AsyncCheckpointer | None = None
        with self._together(f"{self.folder} cannot {'be read' if reading else 'hold checkpoints'}"):
            if reading:
                self._share_lock()
            elif self._primary:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._take_lock()
                self._sweep()  # which may make the room for what comes next
                self._sign_lock()
        if not reading:
            self._checkpointer = _checkpointer(self._before_commit)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self.close()
        except CheckpointError as failure:
            if kind is None:
                raise
            print(failure, file=sys.stderr)  # the error that ends the run is the one to raise

    def steps(self) -> list[int]:
        """The steps of the checkpoints that are there, newest first."""
        return [saved.step for saved in self._committed()]

    def save(
        self,
        step: int,
        arrays: Any,
        about: Mapping[str, Any],
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """Begin to write a checkpoint; the arrays may be donated or changed on return.

        Args:
            step: of the run.
            arrays: a pytree of `jax.Array`s and NumPy arrays.
            about: whatever JSON holds.
            figures: what `best` chooses by; a checkpoint without it is never the best.

        Raises:
            CheckpointError: this checkpoint cannot be written, or the one before could not.
        """
        import orbax.checkpoint as ocp

        self.wait()
        leaves = named(arrays)
        numbers = [saved.number for saved in self._committed()]
        path = self.folder / _Saved(max(numbers, default=0) + 1, step).name
        record = {
            "format": FORMAT,
            "step": step,
            "about": dict(about),
            "figures": {name: float(value) for name, value in (figures or {}).items()},
            "leaves": {
                name: {**kind_of(leaves[name]), "digest": digest}
                for name, digest in digests(leaves).items()
            },
        }
        self._saving = path, json.loads(json.dumps(record))  # as it will be read
        assert self._checkpointer is not None, "it was opened for reading"
        with self._writing():
            self._checkpointer.save(path, args=ocp.args.PyTreeSave(leaves))

    def wait(self) -> None:
        """Wait until what was saved is committed, and remove what need not stay.

        Raises:
            CheckpointError: it could not be written. Those before it are still there.
        """
        if not self._saving:
            return
        assert self._checkpointer is not None
        with self._writing():
            self._checkpointer.wait_until_finished()
            if self._primary:
                sync(self.folder)
        self._saving = None
        if self._primary:
            self._prune()

    def restore(self, like: Any, step: int | None = None) -> Restored | None:
        """The newest checkpoint that is whole, or None in a folder without any.

        A broken one is named on stderr, with the reason, and passed over.

        Args:
            like: a pytree of the structure that was saved. A leaf that has a sharding comes
                back as a `jax.Array` with it, whatever mesh it was saved from, and any other
                as a NumPy array.
            step: the one to restore; the newest by default.

        Raises:
            CheckpointError: every checkpoint is broken, none is of that step, or one that is
                whole has another structure, shape or dtype.
        """
        self.wait()
        there = self._committed()
        chosen = [saved for saved in there if step in (None, saved.step)]
        if step is not None and not chosen:
            steps = ", ".join(str(saved.step) for saved in there) or "none"
            raise CheckpointError(f"{self.folder}: no checkpoint of step {step}; there is {steps}")
        broken = []
        for saved in chosen:
            try:
                return self._load(saved, like)
            except BrokenError as reason:
                self._broken.add(saved)
                broken.append(f"{saved.name}: {reason}")
                if self._primary:
                    path = self.folder / saved.name
                    print(f"{path} is broken and passed over: {reason}", file=sys.stderr)
        if broken:
            raise CheckpointError(f"{self.folder}: no checkpoint is whole ({'; '.join(broken)})")
        return None

    def best_step(self) -> int | None:
        """The step of the checkpoint with the best figure, if any has it."""
        self.wait()
        best = self._best_of(self._committed())
        return best.step if best else None

    def close(self) -> None:
        """Wait for what is being saved and let go of the folder.

        Raises:
            CheckpointError: see `wait`.
        """
        try:
            self.wait()
        finally:
            if self._checkpointer is not None:
                self._checkpointer.close()
            self._unlock()

    # Writing

    def _before_commit(self) -> None:
        """Add the record and sync all; Orbax calls it, on process 0, before it renames."""
        assert self._saving
        path, record = self._saving
        (unfinished,) = self.folder.glob(f"{path.name}{UNFINISHED}*")
        with atomic(unfinished / RECORD) as file:
            file.write(sealed(record))
        for written in [*unfinished.rglob("*"), unfinished]:
            sync(written)

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except Exception as error:
            assert self._saving
            path, _ = self._saving
            self._saving = None
            if self._primary:
                with contextlib.suppress(OSError):
                    self._sweep()
            raise CheckpointError(f"{path} cannot be written: {reason_of(error)}") from error

    def _prune(self) -> None:
        whole = {}
        for saved in reversed(self._there()):
            try:
                self._record(saved)
            except BrokenError:
                continue  # left where it is
            if saved not in self._broken:
                whole[saved.step] = saved  # a later save of a step takes the place of an earlier
        newest = sorted(whole.values(), reverse=True)
        kept = {*newest[: self._keep], self._best_of(newest)}
        for saved in self._there():
            if saved in self._records and saved not in kept | self._broken:
                # Renamed first, so that an interruption leaves no half of it under its name.
                gone = self.folder / (REMOVING + saved.name)
                try:
                    os.rename(self.folder / saved.name, gone)
                    shutil.rmtree(gone)
                except OSError as error:
                    raise CheckpointError(
                        f"{gone} cannot be removed: {reason_of(error)}"
                    ) from error
                del self._records[saved]

    def _best_of(self, saved: list[_Saved]) -> _Saved | None:
        if not self._best:
            return None
        figure, direction = self._best
        sign = {"min": 1, "max": -1}[direction]
        found = []
        for one in saved:
            with contextlib.suppress(BrokenError):
                value = self._record(one)["figures"].get(figure, math.nan)
                if one not in self._broken and not math.isnan(value):
                    found.append((sign * value, one))
        return min(found)[1] if found else None

    # Reading

    def _there(self) -> list[_Saved]:
        """What this process sees, newest first."""
        there = self.folder.iterdir() if self.folder.is_dir() else ()
        names = [NAME.fullmatch(path.name) for path in there if not path.is_symlink()]
        found = (_Saved(int(m[1]), int(m[2])) for m in names if m)
        return sorted((saved for saved in found if saved.step < MOST_STEPS), reverse=True)

    def _committed(self) -> list[_Saved]:
        """What process 0 sees, newest first."""
        if jax.process_count() == 1:
            return self._there()
        there = self._there() if self._primary else []
        count = int(multihost_utils.broadcast_one_to_all(np.int32(len(there))))
        table = np.zeros((count, 2), np.int32)
        table[: len(there)] = there or 0
        return [_Saved(*map(int, row)) for row in multihost_utils.broadcast_one_to_all(table)]

    def _record(self, saved: _Saved) -> Record:
        if saved not in self._records:
            self._records[saved] = unsealed(self.folder / saved.name / RECORD)
        return self._records[saved]

    def _load(self, saved: _Saved, like: Any) -> Restored:
        path = self.folder / saved.name
        self._records.pop(saved, None)
        with self._verifying():
            if links := [one.name for one in path.rglob("*") if one.is_symlink()]:
                raise BrokenError(f"{some(links)} is a link, and none is followed")
            record = self._record(saved)
            if record["step"] != saved.step:
                raise BrokenError(f"{RECORD} is of step {record['step']}")
        wanted = named(like)
        require_same(path, record["leaves"], wanted)
        with self._verifying():
            arrays = _read(path, wanted)
        with self._verifying():
            found = digests(arrays)
            bad = [name for name in wanted if found[name] != record["leaves"][name]["digest"]]
            if bad:
                raise BrokenError(f"{some(bad)} not as saved (another digest)")
        tree = jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in wanted])
        return Restored(record["step"], tree, record["about"], record["figures"])

    # Several processes

    @contextlib.contextmanager
    def _verifying(self):
        """Whatever goes wrong in the block makes the checkpoint broken, for all processes."""
        reason = None
        try:
            yield
        except Exception as error:
            reason = str(error) if isinstance(error, BrokenError) else reason_of(error)
        if not _all_processes(reason is None):
            raise BrokenError(reason or "another process could not read it")

    @contextlib.contextmanager
    def _together(self, failure: str):
        """An operating system error in the block is an error of all processes."""
        reason = None
        try:
            yield
        except (OSError, CheckpointError) as error:
            self._unlock()
            reason = reason_of(error) if isinstance(error, OSError) else str(error)
        if not _all_processes(reason is None):
            raise CheckpointError(f"{failure}: {reason or 'process 0 says why'}")

    # The folder

    def _take_lock(self) -> None:
        """Lock the folder; the system unlocks it when this process ends, however it ends."""
        self._lock = self._open_lock(os.O_RDWR | os.O_CREAT)
        self._hold_lock(fcntl.LOCK_EX)

    def _share_lock(self) -> None:
        """Keep runs out of the folder as long as it is read; where none was there is no lock."""
        with contextlib.suppress(FileNotFoundError):
            self._lock = self._open_lock(os.O_RDONLY)
            self._hold_lock(fcntl.LOCK_SH)

    def _open_lock(self, how: int) -> int:
        """The lock's file, which is not a link to another nor a pipe."""
        if (self.folder / LOCK).is_symlink():
            raise CheckpointError(f"{LOCK} is a link, and none is followed")
        lock = os.open(self.folder / LOCK, how | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if not stat.S_ISREG(os.fstat(lock).st_mode):
            os.close(lock)
            raise CheckpointError(f"{LOCK} is no plain file")
        return lock

    def _hold_lock(self, how: int) -> None:
        assert self._lock is not None
        try:
            fcntl.flock(self._lock, how | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = printable(os.read(self._lock, 100).decode(errors="replace")) or "unknown"
            raise CheckpointError(f"another run is using it ({holder})") from None

    def _sign_lock(self) -> None:
        assert self._lock is not None
        os.ftruncate(self._lock, 0)
        os.write(self._lock, f"process {os.getpid()} on {socket.gethostname()}".encode())

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _sweep(self) -> None:
        """Remove what interrupted saves and removals left."""
        for path in self.folder.iterdir():
            if SWEPT.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)


def _checkpointer(before_commit: Callable[[], None]) -> "ocp.AsyncCheckpointer":
    """Orbax's, for pytrees, without what a checkpoint of ours has in its record.

    Commands that save nothing do not wait for its import.
    """
    import orbax.checkpoint as ocp

    _quieten_orbax()
    registry = ocp.type_handlers.create_type_handler_registry(
        # Replicas written in slices would compile one slicing a shape: seconds at the first save.
        (
            jax.Array,
            ocp.type_handlers.ArrayHandler(
                use_replica_parallel=False, enable_write_sharding_file=False
            ),
        ),
        (np.ndarray, ocp.type_handlers.NumpyHandler()),
    )
    return ocp.AsyncCheckpointer(
        # Weights hardly compress.
        ocp.PyTreeCheckpointHandler(type_handler_registry=registry, use_compression=False),
        async_options=ocp.options.AsyncOptions(
            post_finalization_callback=before_commit, create_directories_asynchronously=False
        ),
        checkpoint_metadata_store=ocp.metadata.metadata_store(enable_write=False),
    )


def _quieten_orbax() -> None:
    """Keep tracebacks of failed writes off the command line; they are raised as well."""
    for logger in ("absl", "asyncio"):
        logging.getLogger(logger).addFilter(_not_of_a_write)
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = cast(Any, _Hook(sys.unraisablehook))


class _Hook(NamedTuple):
    """Passes on all but the end of a write whose event loop Orbax has closed.

    Of many writes that fail at once it awaits the first only.
    """

    before: Callable[[Any], Any]

    def __call__(self, unraisable: Any) -> None:
        if unraisable.object or str(unraisable.exc_value) != "Event loop is closed":
            self.before(unraisable)


def _not_of_a_write(record: logging.LogRecord) -> bool:
    """Neither Orbax's own word nor asyncio's on a write that failed after the first."""
    of_orbax = f"{os.sep}orbax{os.sep}" in record.pathname
    return not of_orbax and UNFINISHED not in record.getMessage()


def _read(path: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a checkpoint as Orbax lays them out, each process its own shards.

    Orbax's own restore gives up at the first array that cannot be read and leaves the reads of
    the others under way, whose failures then end as tracebacks on stderr. Here each is awaited.
    """
    context = tensorstore.Context()
    opening = {name: tensorstore.open(_place(path, name), context=context) for name in wanted}
    failed = [name for name, future in opening.items() if future.exception()]
    if failed:
        reason = reason_of(opening[failed[0]].exception())
        raise BrokenError(f"{some(failed)} cannot be read: {reason}")
    arrays: dict[str, Any] = {}
    for name, leaf in wanted.items():
        there = opening[name].result()

        def read(index: Any, there: Any = there) -> np.ndarray:
            return there[index].read().result()

        sharding = getattr(leaf, "sharding", None)
        if list(there.shape) != list(leaf.shape):
            raise BrokenError(f"{name} has shape {list(there.shape)}, another than recorded")
        if sharding is None:
            arrays[name] = read(...)
        else:
            arrays[name] = jax.make_array_from_callback(there.shape, sharding, read)
    return arrays


def _place(path: Path, name: str) -> dict[str, Any]:
    """Of an array, for TensorStore."""
    base = {"driver": "file", "path": f"{path}/"}
    return {
        "driver": "zarr",
        "kvstore": {"driver": "ocdbt", "base": base, "path": f"{name}/"},
        "open": True,
    }


def _all_processes(well: bool) -> bool:
    if jax.process_count() == 1:
        return well
    return bool(multihost_utils.process_allgather(np.array(well)).all())
