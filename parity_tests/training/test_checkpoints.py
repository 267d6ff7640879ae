"""Checkpoints: what is restored is bitwise what was saved, and nothing broken is ever taken."""

import asyncio
import contextlib
import errno
import gc
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from flaxnets.training.checkpoints import CheckpointError, Checkpoints
from flaxnets.training.record import sealed
from parity_tests import fuzz


class State(NamedTuple):
    """As a training step has it: flat leaves, a key and a count."""

    params: tuple
    key: jax.Array
    step: jax.Array


def _state(step):
    """A state that is a function of its step."""
    draw = np.random.default_rng(step).normal
    return State(
        params=(jnp.asarray(draw(size=(40, 30)), jnp.float32), jnp.asarray(draw(size=7))),
        key=jax.random.key_data(jax.random.key(step)),
        step=jnp.int32(step),
    )


def _bits(tree):
    return [
        (str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)
    ]


def _like(tree):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=x.sharding if isinstance(x, jax.Array) else None
        ),
        tree,
    )


def _save(folder, steps, **options):
    with Checkpoints(folder, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, _state(step), {"step": step}, {"eval_loss": abs(step - 20)})
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _restore(folder, **options):
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore(_like(_state(0)), **options)


DTYPES = [
    *(np.float32, np.float16, ml_dtypes.bfloat16, np.int32, np.int16, np.int8),
    *(np.uint32, np.uint16, np.uint8, np.bool_, np.complex64),
]
WIDE = [np.float64, np.int64, np.uint64]


def test_round_trip(tmp_path):
    """Arrays of every dtype, on devices and in NumPy, come back with the same bits and places."""
    rng = np.random.default_rng(0)
    host = {}
    for dtype in DTYPES + WIDE:
        content = rng.bytes(35 * np.dtype(dtype).itemsize)
        bits = np.frombuffer(content, np.uint8) & 1 if dtype == np.bool_ else content
        host[np.dtype(dtype).name] = np.frombuffer(bits, dtype).reshape(5, 7)
    host |= {"scalar": np.array(3, np.int32), "zeros": np.zeros((4, 5), np.float32)}
    device = {name: jnp.asarray(x) for name, x in host.items() if x.dtype not in WIDE}
    arrays = {"host": host, "device": (device, _state(5))}
    about = {"spec": {"architecture": "lenet"}, "seed": 3, "dispatch": None}
    with Checkpoints(tmp_path / "Lauf #1, 50%20 für") as checkpoints:
        assert checkpoints.restore(_like(arrays)) is None
        checkpoints.save(5, arrays, about, {"eval_loss": 0.1})
        found = checkpoints.restore(_like(arrays))
    assert (found.step, found.about, found.figures) == (5, about, {"eval_loss": 0.1})
    assert jax.tree.structure(found.arrays) == jax.tree.structure(arrays)
    assert _bits(found.arrays) == _bits(arrays)
    assert jax.tree.map(type, found.arrays) == jax.tree.map(type, arrays)


def test_donation(tmp_path):
    """What is donated or overwritten right after `save` is saved as it was."""
    double = jax.jit(lambda tree: jax.tree.map(lambda x: x * 2, tree), donate_argnums=0)
    arrays = {f"w{i}": jnp.full((500, 400), i + 1.0) for i in range(10)}
    host = np.arange(100_000.0)
    with Checkpoints(tmp_path, keep=10) as checkpoints:
        for step in range(4):
            checkpoints.save(step, {"device": arrays, "host": host}, {})
            arrays = double(arrays)
            host *= 2
        for step in range(4):
            found = checkpoints.restore(_like({"device": arrays, "host": host}), step=step)
            for i in range(10):
                assert (found.arrays["device"][f"w{i}"] == (i + 1) * 2.0**step).all()
            np.testing.assert_array_equal(found.arrays["host"], np.arange(100_000.0) * 2**step)


def test_keep_and_best(tmp_path):
    """The newest stay, and the one with the best figure besides, over two runs."""
    _save(tmp_path, [10, 20, 30], keep=2, best=("eval_loss", "min"))
    _save(tmp_path, [40, 50], keep=2, best=("eval_loss", "min"))
    with Checkpoints(tmp_path, keep=2, best=("eval_loss", "min")) as checkpoints:
        assert checkpoints.steps() == [50, 40, 20]
        assert checkpoints.best_step() == 20
        checkpoints.save(60, _state(60), {}, {"eval_loss": float("nan")})
        checkpoints.save(70, _state(70), {})
        assert checkpoints.best_step() == 20
        assert checkpoints.steps() == [70, 60, 20]
        checkpoints.save(80, _state(80), {}, {"eval_loss": -1.0})
        assert checkpoints.best_step() == 80
        assert checkpoints.steps() == [80, 70]
    with Checkpoints(tmp_path, keep=2, best=("eval_loss", "max")) as checkpoints:
        checkpoints.save(90, _state(90), {}, {"eval_loss": -2.0})
        assert checkpoints.best_step() == 80


def test_newest_is_the_last_saved(tmp_path):
    """A run that goes on from an older step is what the next one finds, not the branch it left."""
    _save(tmp_path, [10, 20, 30])
    _save(tmp_path, [15, 20])
    assert _restore(tmp_path).step == 20
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [20, 15, 30]


def _largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda path: path.stat().st_size)


def _truncate(folder):
    os.truncate(_largest(folder), _largest(folder).stat().st_size // 2)


def _flip(folder):
    content = bytearray(_largest(folder).read_bytes())
    content[len(content) // 2] ^= 4
    _largest(folder).write_bytes(content)


def _zero(folder):
    content = bytearray(_largest(folder).read_bytes())
    content[1000:1512] = bytes(512)
    _largest(folder).write_bytes(content)


def _edit(folder, change):
    record = json.loads((folder / "record.json").read_text())
    change(record["record"])
    (folder / "record.json").write_text(json.dumps(record))


def _other_checkpoint(folder):
    """Arrays of one checkpoint with the record of another."""
    record = (folder / "record.json").read_bytes()
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "000001-step-10", folder)
    (folder / "record.json").write_bytes(record)


BREAK = {
    "data truncated": _truncate,
    "data flipped": _flip,
    "data zeroed": _zero,
    "data missing": lambda folder: _largest(folder).unlink(),
    "other data": _other_checkpoint,
    "manifest missing": lambda folder: (folder / "manifest.ocdbt").unlink(),
    "manifest garbled": lambda folder: (folder / "manifest.ocdbt").write_bytes(b"\x07" * 116),
    "record missing": lambda folder: (folder / "record.json").unlink(),
    "record empty": lambda folder: (folder / "record.json").write_bytes(b""),
    "record garbled": lambda folder: (folder / "record.json").write_bytes(b"\xff\x00[1"),
    "record edited": lambda folder: _edit(folder, lambda record: record.update(step=31)),
    "folder empty": lambda folder: [shutil.rmtree(folder), folder.mkdir()],
    "a file": lambda folder: [shutil.rmtree(folder), folder.write_text("")],
}


@pytest.mark.parametrize("kind", BREAK)
def test_broken(tmp_path, capfd, kind):
    """A broken checkpoint is named, left, and the one before it restored bitwise."""
    newest = _save(tmp_path, [10, 20, 30])[-1]
    BREAK[kind](newest)
    found = _restore(tmp_path)
    assert (found.step, found.about) == (20, {"step": 20})
    assert _bits(found.arrays) == _bits(_state(20))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.fullmatch(rf"{newest} is broken and passed over: .{{3,80}}", lines[0])
    assert newest.exists()


def test_every_byte_of_the_data(tmp_path, capfd):
    """Whichever byte is changed, the checkpoint is passed over or still holds the same bits."""
    newest = _save(tmp_path, [10, 20])[-1]
    passed_over = 0
    for path in sorted(path for path in newest.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for place in np.linspace(0, len(content) - 1, 4).astype(int):
            path.write_bytes(
                content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]
            )
            found = _restore(tmp_path)
            assert _bits(found.arrays) == _bits(_state(found.step))
            assert found.about == {"step": found.step}
            passed_over += found.step == 10
        path.write_bytes(content)
    assert passed_over >= 10
    assert _restore(tmp_path).step == 20


def test_broken_ones_do_not_count(tmp_path, capfd):
    """A run that went on from behind a broken checkpoint keeps as many whole ones as it should."""
    newest = _save(tmp_path, [10, 20, 30])[-1]
    _flip(newest)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.restore(_like(_state(0))).step == 20
        checkpoints.save(40, _state(40), {"step": 40})
    assert _restore(tmp_path).step == 40
    assert _restore(tmp_path, step=20).step == 20
    assert newest.exists()


def test_all_broken(tmp_path, capfd):
    """Where no checkpoint is whole the error lists them all, on one line."""
    for folder in _save(tmp_path, [10, 20]):
        _flip(folder)
    with pytest.raises(CheckpointError, match=r"no checkpoint is whole.*step-20: .*step-10: ") as e:
        _restore(tmp_path)
    assert "\n" not in str(e.value)


def test_another_network(tmp_path, capfd):
    """A whole checkpoint of another structure is an error that names what differs, not broken."""
    _save(tmp_path, [10])
    like = _like(_state(0))
    wrong = [
        (like._replace(params=(like.params[0],)), r"params\.1 is float32\[7\] there, missing here"),
        (like._replace(params=(*like.params, like.key)), r"params\.2 is missing there"),
        (like._replace(step=like.key), r"step is int32\[\] there, uint32\[2\] here"),
        (
            {f"w{i}": like.step for i in range(9)},
            r"w2 is missing there, int32\[\] here and 10 more",
        ),
    ]
    for other, message in wrong:
        with Checkpoints(tmp_path) as checkpoints, pytest.raises(CheckpointError, match=message):
            checkpoints.restore(other)
    assert capfd.readouterr().err == ""


def test_step(tmp_path):
    """A step can be chosen; one that is not there is an error that says which are."""
    _save(tmp_path, [10, 20, 30])
    assert _bits(_restore(tmp_path, step=10).arrays) == _bits(_state(10))
    with pytest.raises(CheckpointError, match="no checkpoint of step 15; there is 30, 20, 10"):
        _restore(tmp_path, step=15)


def test_interrupted(tmp_path):
    """What an interrupted save or removal left is not seen, and is gone at the next start."""
    whole, other = _save(tmp_path, [10, 20])
    other.rename(tmp_path / "000002-step-20.orbax-checkpoint-tmp")
    shutil.copytree(whole, tmp_path / ".removing-000000-step-5")
    assert _restore(tmp_path).step == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", whole.name]


def test_one_run_a_folder(tmp_path):
    """A second run is refused and told who is there; one that died is not in the way."""
    with (
        Checkpoints(tmp_path),
        pytest.raises(CheckpointError, match=rf"another run is using it \(process {os.getpid()} "),
    ):
        Checkpoints(tmp_path)
    code = "import sys, os; from flaxnets.training.checkpoints import Checkpoints\n"
    code += "c = Checkpoints(sys.argv[1]); os.kill(os.getpid(), 9)"
    assert _children(code, [tmp_path]) == [("", -signal.SIGKILL)]
    Checkpoints(tmp_path).close()


def test_unsuitable_arrays(tmp_path):
    """A leaf that is no array, or two of one name, is refused before anything is written."""
    with Checkpoints(tmp_path) as checkpoints:
        for arrays, message in [
            ({"a": 3}, "a is int; save an array"),
            ({"k": jax.random.key(0)}, "k is key<fry>; .*key_data"),
            ({"a.b": np.ones(1), "a": {"b": np.ones(1)}}, r"two leaves are called a\.b"),
            ({"a": np.ones((0, 3))}, r"a has shape \(0, 3\)"),
        ]:
            with pytest.raises(ValueError, match=message):
                checkpoints.save(1, arrays, {})
        with pytest.raises(TypeError, match="JSON"):
            checkpoints.save(1, {"a": np.ones(1)}, {"spec": object()})
        with pytest.raises(ValueError, match="keep is 0"):
            Checkpoints(tmp_path, keep=0)
        assert checkpoints.steps() == []


# Failures of the file system


@pytest.fixture(params=["disk", "limit"])
def full(request, tmp_path):
    """A folder, and a function that leaves no room in it."""
    if request.param == "limit":  # files longer than the limit fail as on a full disk
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        yield tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return
    yield request.getfixturevalue("small_disk")("4m"), lambda: None


def _big():
    """More than the disk holds, in many arrays, so that many writes fail at once."""
    draw = np.random.default_rng(0).normal
    host = {f"w{i}": draw(size=40_000) for i in range(15)}
    return {"host": host, "device": jax.tree.map(jnp.float32, host)}


def test_full_disk(full):
    """A save without room is one line; what was committed stays, and saving goes on with room."""
    folder, fill = full
    small = {"w": np.arange(10_000.0)}
    big = _big()
    with Checkpoints(folder / "run") as checkpoints:
        checkpoints.save(1, small, {})
        checkpoints.wait()
        fill()
        checkpoints.save(2, big, {})
        with pytest.raises(CheckpointError) as caught:
            checkpoints.wait()
        reasons = "|".join(os.strerror(code) for code in (errno.ENOSPC, errno.EFBIG))
        assert re.fullmatch(rf"\S+000002-step-2 cannot be written: ({reasons})", str(caught.value))
        assert checkpoints.steps() == [1]
        assert sorted(path.name for path in (folder / "run").iterdir()) == [
            ".lock",
            "000001-step-1",
        ]
        found = checkpoints.restore(small)
        assert found.step == 1
        assert _bits(found.arrays) == _bits(small)
        checkpoints.save(3, small, {})
        checkpoints.wait()
        assert checkpoints.steps() == [3, 1]


def test_failure_surfaces_later(full):
    """An asynchronous failure is raised by whichever call comes next, and only once."""
    folder, fill = full
    big = _big()
    fill()
    with pytest.raises(CheckpointError, match="cannot be written"), Checkpoints(folder) as c:
        c.save(1, big, {})
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, big, {})
        with pytest.raises(CheckpointError, match="step-1 cannot be written"):
            checkpoints.save(2, {"w": np.ones(3)}, {})
        checkpoints.save(2, {"w": np.ones(3)}, {})
    with Checkpoints(folder):  # which removes what writers that were cut off have left
        assert [path.name for path in folder.iterdir() if path.is_dir()] == ["000001-step-2"]


def test_not_masked(full, capfd):
    """The error that ends a run is raised; that its last save failed as well is a line."""
    folder, fill = full
    fill()
    big = _big()

    def interrupted():
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(1, big, {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert re.fullmatch(r"\S+ cannot be written: .*\n", capfd.readouterr().err)


@pytest.fixture
def closed(tmp_path):
    """A folder that may be read only, also where root runs the tests."""
    tmp_path.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield tmp_path
    os.seteuid(user)
    tmp_path.chmod(0o755)


def test_unwritable(closed):
    """A folder that cannot be made or written is one line with path and reason."""
    for path in closed, closed / "run":
        with pytest.raises(CheckpointError) as caught:
            Checkpoints(path)
        assert str(caught.value) == f"{path} cannot hold checkpoints: Permission denied"


def test_folder_is_a_file(tmp_path):
    """A file in the place of the folder, or above it, is one line."""
    (tmp_path / "file").write_text("")
    for path, reason in [("file", "File exists"), ("file/run", "Not a directory")]:
        with pytest.raises(CheckpointError, match=rf"{path} cannot hold checkpoints: {reason}"):
            Checkpoints(tmp_path / path)


# Other processes


def _children(code, *arguments, stderr=None, **environment):
    """Run one Python process for each list of arguments; their outputs and exit codes."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, *map(str, own)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        for own in arguments
    ]
    try:
        return [(child.communicate(timeout=100)[0], child.returncode) for child in children]
    finally:
        for child in children:
            with child:
                child.kill()


FAILING = """
import resource, sys, jax, numpy as np
from flaxnets.training.checkpoints import CheckpointError, Checkpoints
from parity_tests import fuzz

host = {f"w{i}": np.random.default_rng(i).normal(size=(200, 200)) for i in range(30)}
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
for arrays in host, jax.tree.map(jax.numpy.asarray, host):
    try:
        with Checkpoints(sys.argv[1]) as checkpoints:
            checkpoints.save(1, arrays, {})
    except CheckpointError as error:
        print(error)
"""


def test_one_line(tmp_path):
    """However many writes fail at once, a run prints what was raised and nothing else."""
    line = f"{tmp_path}/000001-step-1 cannot be written: {os.strerror(errno.EFBIG)}\n"
    assert _children(FAILING, [tmp_path], stderr=subprocess.STDOUT) == [(2 * line, 0)]


@pytest.mark.parametrize("folder", ["000001-step-1.orbax-checkpoint-tmp", "elsewhere"])
def test_unawaited(tmp_path, caplog, folder):
    """Of writes that nobody awaits, asyncio reports all but those of a checkpoint."""
    Checkpoints(tmp_path).close()
    loop = asyncio.new_event_loop()
    loop.create_future().set_exception(ValueError(f"Error writing to {tmp_path / folder}/0"))
    loop.close()
    gc.collect()
    told = [record for record in caplog.records if str(tmp_path) in record.getMessage()]
    assert len(told) == (folder == "elsewhere")


MESHES = """
import sys, jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from flaxnets.training.checkpoints import Checkpoints
from flaxnets.training import digest

def mesh(data, fsdp):
    devices = jax.devices()[: data * fsdp]
    axes = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((data, fsdp), ("data", "fsdp"), axis_types=axes, devices=devices)

values = {
    "kernel": np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32),
    "bias": np.random.default_rng(1).normal(size=(16,)).astype(np.float32),
    "both": np.arange(64, dtype=np.uint32).reshape(8, 8),
    "step": np.array(5, np.int32),
}
specs = {"kernel": P(None, "fsdp"), "bias": P(), "both": P("data", "fsdp"), "step": P()}
layouts = {(4, 2): specs, (1, 1): specs, (2, 1): specs, (1, 8): specs, (8, 1): specs, (2, 4): specs}
with Checkpoints(sys.argv[1]) as checkpoints:
    there = {
        name: jax.device_put(x, NamedSharding(mesh(4, 2), specs[name]))
        for name, x in values.items()
    }
    checkpoints.save(5, there, {})
    over = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0, tree), donate_argnums=0)
    jax.block_until_ready(over(there))
    for shape, specs in layouts.items():
        like = {
            name: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=NamedSharding(mesh(*shape), specs[name])
            )
            for name, x in values.items()
        }
        found = checkpoints.restore(like)
        assert found.step == 5
        for name, x in values.items():
            got = found.arrays[name]
            assert got.sharding == like[name].sharding
            assert np.asarray(got).tobytes() == x.tobytes() and got.dtype == x.dtype
            np.testing.assert_array_equal(digest._on_device(got), digest._on_host(x))
print(jax.device_count(), "devices,", len(layouts), "layouts")
"""


def test_other_meshes(tmp_path):
    """Saved as data=4, fsdp=2 and donated at once, restored on 1, 2 and 8: the same bits."""
    eight = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    assert _children(MESHES, [tmp_path], **eight) == [("8 devices, 6 layouts\n", 0)]


PROCESSES = """
import sys, jax, numpy as np
jax.distributed.initialize(sys.argv[2], 2, int(sys.argv[3]))
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from flaxnets.training import checkpoints, digest

mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
specs = {"sharded": P("data"), "replicated": P(), "step": P()}

def state(step):
    draw = np.random.default_rng(step).normal
    arrays = {"sharded": draw(size=(6, 5)), "replicated": draw(size=7), "step": np.array(step)}
    return {name: x.astype(np.float32) for name, x in arrays.items()}

def globally(arrays):
    return {
        name: jax.make_array_from_callback(
            x.shape, NamedSharding(mesh, specs[name]), lambda index, x=x: x[index]
        )
        for name, x in arrays.items()
    }

def check(found, step):
    assert found.step == step and found.about == {"step": step}
    for name, x in state(step).items():
        for shard in found.arrays[name].addressable_shards:
            assert np.asarray(shard.data).tobytes() == x[shard.index].tobytes()

with checkpoints.Checkpoints(sys.argv[1], keep=2) as c:
    for step in (1, 2, 3):
        c.save(step, globally(state(step)), {"step": step})
    like = globally(state(0))
    assert digest.digests(like) == digest.digests(state(0))
    check(c.restore(like), 3)
    assert c.steps() == [3, 2]
    # One process cannot read the newest: both take the one before.
    read = checkpoints._read
    def failing(path, wanted):
        if sys.argv[3] == "1" and path.name.endswith("step-3"):
            raise OSError(5, "Input/output error")
        return read(path, wanted)
    checkpoints._read = failing
    check(c.restore(like), 2)
try:
    checkpoints.Checkpoints("/dev/null/run")
except checkpoints.CheckpointError as error:
    print("refused", flush=True)
"""


def test_two_processes(tmp_path):
    """Each process writes and reads its shards; what one cannot read, no process takes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    ran = _children(PROCESSES, [tmp_path, address, 0], [tmp_path, address, 1])
    assert [code for _, code in ran] == [0, 0]
    assert all(output.endswith("refused\n") for output, _ in ran)


SAVING = """
import os, random, signal, sys, time
import numpy as np
from flaxnets.training.checkpoints import Checkpoints

def state(step):
    draw = np.random.default_rng(step)
    return {f"w{i}": draw.normal(size=(50, 60 + i)) for i in range(12)}

def look(checkpoints):
    found = checkpoints.restore(state(0))
    if not found:
        return 0
    want = state(found.step)
    assert all(found.arrays[name].tobytes() == want[name].tobytes() for name in want)
    assert found.about == {"step": found.step}
    return found.step

def run(report):
    with Checkpoints(sys.argv[1], keep=2) as checkpoints:
        step = begun = look(checkpoints)
        while True:
            os.write(report, b"%d %d\\n" % (begun, step))
            step += 1
            checkpoints.save(step, state(step), {"step": step})

random.seed(0)
committed = 0
for _ in range(8):
    receive, report = os.pipe()
    if not (child := os.fork()):  # before any thread: nothing has touched a backend yet
        try:
            run(report)
        finally:
            os._exit(1)
    os.close(report)
    with open(receive, "rb", buffering=0) as file:
        lines = [file.readline() for _ in range(3)]  # so that every run gets further
        time.sleep(random.uniform(0, 0.25))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        begun, last = map(int, (lines + file.read().splitlines())[-1].split())
    # The save of the step before the last has returned from the wait for the one before it.
    assert begun >= committed, (begun, committed)
    committed = max(begun, last - 1)
with Checkpoints(sys.argv[1], keep=2) as checkpoints:
    assert look(checkpoints) >= committed
print(committed)
"""


def test_kill(tmp_path):
    """Killed eight times while saving, a run finds the newest whole state, bit for bit."""
    ((committed, code),) = _children(SAVING, [tmp_path])
    assert code == 0
    assert int(committed) >= 8


@pytest.fixture
def disk(small_disk):
    """A disk that can be mounted anew, for reading only."""
    return small_disk("4m")


def test_links(tmp_path):
    """Neither the lock nor a checkpoint is followed out of the folder; nothing there changes."""
    folder, precious = tmp_path / "checkpoints", tmp_path / "precious"
    folder.mkdir()
    precious.write_text("a user's file")
    (folder / ".lock").symlink_to(precious)
    for reading in (False, True):
        with pytest.raises(CheckpointError, match=r"\.lock is a link, and none is followed"):
            Checkpoints(folder, reading=reading)
    assert precious.read_text() == "a user's file"
    (folder / ".lock").unlink()
    os.mkfifo(folder / ".lock")
    with pytest.raises(CheckpointError, match=r"\.lock is no plain file"):
        Checkpoints(folder)
    (folder / ".lock").unlink()
    _, newest = _save(folder, [10, 20])
    shutil.copytree(newest, tmp_path / "elsewhere")
    (folder / "000003-step-30").symlink_to(tmp_path / "elsewhere")
    (folder / ".removing-000009-step-1").symlink_to(tmp_path / "elsewhere")
    with fuzz.untouched(tmp_path / "elsewhere"):
        assert _restore(folder).step == 20
        _save(folder, [40])
    (newest / "record.json").rename(tmp_path / "record.json")
    (newest / "record.json").symlink_to(tmp_path / "record.json")
    assert _restore(folder, step=10).step == 10
    with pytest.raises(CheckpointError, match=r"record\.json is a link, and none is followed"):
        _restore(folder, step=20)


def test_a_users_files(tmp_path):
    """What a user keeps in the folder stays, whatever it is called."""
    for name in (".removing-notes", "my.orbax-checkpoint-tmp", ".removing-1", "x-step-1"):
        (tmp_path / name).mkdir()
    _save(tmp_path, [10])
    assert {path.name for path in tmp_path.iterdir()} == {
        *(".lock", ".removing-notes", "my.orbax-checkpoint-tmp", ".removing-1", "x-step-1"),
        "000001-step-10",
    }


def test_reading(tmp_path, disk):
    """Reading makes no lock, sweeps nothing, and works on a disk that may not be written to."""
    folder = disk / "checkpoints"
    other = _save(folder, [10, 20])[-1]
    other.rename(folder / "000002-step-20.orbax-checkpoint-tmp")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with fuzz.untouched(folder), Checkpoints(folder, reading=True) as checkpoints:
        assert _bits(checkpoints.restore(_like(_state(0))).arrays) == _bits(_state(10))
    with Checkpoints(tmp_path / "nowhere", reading=True) as checkpoints:
        assert checkpoints.steps() == []
        assert checkpoints.restore(_like(_state(0))) is None
    assert not (tmp_path / "nowhere").exists()


def test_no_run_while_it_is_read(tmp_path):
    """Several may read at once; a run is kept out meanwhile, and they where a run is."""
    _save(tmp_path, [10])
    with (
        Checkpoints(tmp_path, reading=True),
        Checkpoints(tmp_path, reading=True),
        pytest.raises(CheckpointError, match="another run is using it"),
    ):
        Checkpoints(tmp_path)
    with Checkpoints(tmp_path), pytest.raises(CheckpointError, match="cannot be read: another run"):
        Checkpoints(tmp_path, reading=True)


def test_format_of_anybody(tmp_path, capfd):
    """A format that would move the terminal's cursor is shown and not obeyed."""
    (folder,) = _save(tmp_path / "checkpoints", [10])
    record = {**json.loads((folder / "record.json").read_text())["record"], "format": "\x1b[31m"}
    (folder / "record.json").write_bytes(sealed(record))
    with pytest.raises(CheckpointError, match=r"000001-step-10: format \\x1b\[31m; this version"):
        _restore(tmp_path / "checkpoints")
    assert "\x1b" not in capfd.readouterr().err


def test_any_record(tmp_path, attack):
    """A record that is mutated and sealed again is restored as saved, or refused in one line."""
    (folder,) = _save(tmp_path / "checkpoints", [10])
    good = json.loads((folder / "record.json").read_text())["record"]

    def check(text):
        with contextlib.suppress(RecursionError):
            seal = hashlib.sha256(json.dumps(json.loads(text), sort_keys=True).encode())
            text = f'{{"sha256": "{seal.hexdigest()}", "record": {text}}}'
        (folder / "record.json").write_text(text)
        with fuzz.one_line(CheckpointError):
            found = _restore(tmp_path / "checkpoints")
            assert found.step == 10
            assert _bits(found.arrays) == _bits(_state(10))

    attack("records of checkpoints", fuzz.mutated(good), check, 30)
