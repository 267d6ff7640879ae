"""A run that is interrupted, however and whenever, must end as the one that never was, bit for bit.

Each test is a chain: a run is started, ended by force at a drawn moment, resumed, ended again,
and so on, until it is let finish and is compared with one that was left alone.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

MLP = (
    *(
        "train",
        "mlp",
        "--data",
        "digits",
        "--in-features",
        "64",
        "--hidden-sizes",
        "24",
        "16",
        "12",
    ),
    *("--steps", "240", "--save-every", "6", "--batch-size", "32", "--ema", "0.9"),
    *("--schedule", "cosine", "--warmup", "9"),
    *("--steps-per-dispatch", "4"),  # which the pauses for saving do not fall in with
)
VAE = (
    *("train", "vae", "--data", "digits", "--in-shape", "1", "8", "8", "--channels", "4", "5"),
    *("--batch-size", "16", "--clip-norm", "5", "--save-every", "5"),
)
# Batch statistics, random numbers, evaluations of which the best counts, parts of batches.
FLAX_VAE = (
    *(*VAE, "--steps", "200", "--eval-every", "20", "--accumulate", "2"),
    *("--steps-per-dispatch", "1"),
)
TORCH_VAE = (*VAE, "--steps", "160", "--backend", "torch", "--ema", "0.9")


class Lives:
    """Starts runs of the command line in processes of their own, one at a time."""

    def __init__(self, cache):
        settings = {
            "JAX_ENABLE_COMPILATION_CACHE": "true",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
            "JAX_PLATFORMS": "cpu",
            "OMP_NUM_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",  # as the command sets it, where JAX has not before
            "XLA_FLAGS": "",  # the code that users run is optimised
        }
        self.log = cache.with_suffix(".log")
        self.parent = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("lives.py")],
            env={**os.environ, **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def begin(self, *words):
        """Start a command."""
        request = {"words": [str(word) for word in words], "log": str(self.log)}
        self.parent.stdin.write(json.dumps(request) + "\n")
        self.process = int(self.parent.stdout.readline())

    def end(self):
        """Wait for its end; the exit code and the lines on standard error."""
        code = int(self.parent.stdout.readline())
        return code, self.log.read_text().splitlines()

    def alive(self):
        """Whether it runs."""
        return Path(f"/proc/{self.process}/task").exists() and not _is_zombie(self.process)


def _is_zombie(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(scope="module")
def lives(tmp_path_factory):
    """The parent of all runs of this file, with compiled programs that outlive them."""
    lives = Lives(tmp_path_factory.mktemp("cache"))
    yield lives
    lives.parent.communicate()
    assert lives.parent.returncode == 0


@pytest.fixture(scope="module")
def reference(lives, tmp_path_factory):
    """A run of the small network that was left alone."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    _finish(lives, *MLP, "--out", folder)
    return folder


def _lines(run):
    """What was measured, without the time that it took and a line that is being written."""
    try:
        text = (run / "metrics.jsonl").read_text()
    except FileNotFoundError:
        return []
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [{name: x for name, x in line.items() if name != "seconds"} for line in lines]


def _step(run):
    """Of the last whole line."""
    try:
        whole = (run / "metrics.jsonl").read_bytes().rpartition(b"\n")[0]
    except FileNotFoundError:
        return 0
    return json.loads(whole.rpartition(b"\n")[2])["step"] if whole else 0


def _checkpoints(run):
    """Committed ones, oldest first."""
    folder = run / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"\d+-step-\d+", path.name))


def _committed(run):
    """The step of the newest checkpoint."""
    there = _checkpoints(run)
    return int(there[-1].name.rpartition("-")[2]) if there else 0


def _is_saving(run):
    folder = run / "checkpoints"
    return folder.is_dir() and any("checkpoint-tmp" in path.name for path in folder.iterdir())


def _wait(lives, condition):
    """Until it holds; the run must not end before."""
    while not condition():
        assert lives.alive(), lives.end()
        time.sleep(0.0005)


def _reach(lives, run, step):
    _wait(lives, lambda: _step(run) >= step)


def _finish(lives, *words):
    lives.begin(*words)
    assert lives.end() == (0, [])


def _require_same(run, reference):
    """Weights, figures and files are those of the run that was left alone."""
    assert _lines(run) == _lines(reference) != []
    weights = [(folder / "model.safetensors").read_bytes() for folder in (run, reference)]
    assert weights[0] == weights[1]
    names = [sorted(path.name for path in folder.iterdir()) for folder in (run, reference)]
    assert names[0] == names[1]
    assert not _is_saving(run)


@pytest.mark.parametrize(
    ("words", "kills", "last"),
    [
        (MLP, 16, "checkpoints"),
        (FLAX_VAE, 12, "model.safetensors"),
        (TORCH_VAE, 8, "loss.png"),
    ],
    ids=["mlp flax", "vae flax", "vae torch"],
)
def test_sigkill(lives, tmp_path, words, kills, last, record_property):
    """Killed in its steps, while it saves, from its start on, and behind its last step."""
    draw = random.Random(str(words))
    run, reference = tmp_path / "run", tmp_path / "reference"
    _finish(lives, *words, "--out", reference)
    steps, saving, startup = _committed(reference), 0, 0.0
    for number in range(kills):
        begun, resume = _committed(run), run.exists()
        target = begun + draw.randint(1, 12)
        began = time.monotonic()
        lives.begin(*words[:2], *(("--resume", run) if resume else (*words[2:], "--out", run)))
        if number == kills - 1:  # behind its last step, before its last file
            _wait(lives, lambda: _committed(run) == steps and (run / last).exists())
        elif number % 3 == 0:
            _reach(lives, run, begun + 1)
            startup = time.monotonic() - began
            _reach(lives, run, target)
            _wait(lives, lambda: _is_saving(run))
        elif number % 3 == 1:
            _reach(lives, run, target)
            time.sleep(draw.uniform(0, 0.02))
        else:
            time.sleep(draw.uniform(0, startup))
        os.kill(lives.process, signal.SIGKILL)
        assert lives.end() == (-signal.SIGKILL, [])
        assert _committed(run) >= begun  # nothing that was committed is lost
        saving += _is_saving(run)
    _finish(lives, *words[:2], "--resume", run)
    _require_same(run, reference)
    assert 3 * saving >= kills
    record_property("SIGKILL", kills)
    record_property("of them while saving", saving)


def test_sigterm(lives, tmp_path, reference, record_property):
    """Asked to stop, a run saves the step that it is at, says how to go on, and ends with 143."""
    draw = random.Random(0)
    run, words = tmp_path / "run", (*MLP, "--out", tmp_path / "run")
    for _ in range(10):
        target = _committed(run) + draw.randint(1, 20)
        lives.begin(*words)
        _reach(lives, run, target)
        time.sleep(draw.uniform(0, 0.05))
        os.kill(lives.process, signal.SIGTERM)
        code, (line,) = lives.end()
        assert code == 128 + signal.SIGTERM
        step = _committed(run)
        assert step >= target
        assert line == (
            f"flaxnets: stopped by SIGTERM after step {step}; go on with --resume {run}"
        )
        words = (*MLP[:2], "--resume", run)
    _finish(lives, *words)
    _require_same(run, reference)
    lives.begin(*words)
    assert lives.end() == (
        2,
        [f"flaxnets: {run} has taken its 240 steps; give more with --steps"],
    )
    record_property("SIGTERM", 10)


@pytest.fixture
def disk(small_disk):
    """A file system with room for a few checkpoints."""
    return small_disk("2m")


def _fill(path):
    """Take all the room that there is."""
    with open(path, "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def _keep_full(lives, filler):
    """Again and again, since a checkpoint that is removed makes room, until the run has ended."""
    while lives.alive():
        _fill(filler)
        time.sleep(0.005)


def test_full_disk(lives, disk, reference, record_property):
    """Without room a run ends with one line that names a file, and with room it goes on."""
    draw = random.Random(1)
    run, filler = disk / "run", disk / "filler"
    words = (*MLP, "--out", run)
    for number in range(10):
        begun = _committed(run)
        target = begun + draw.randint(1, 15)
        lives.begin(*words)
        _reach(lives, run, target)
        time.sleep(draw.uniform(0, 0.02))
        words = (*MLP[:2], "--resume", run)
        _keep_full(lives, filler)
        _require_failed(lives, run, "No space left on device")
        assert begun <= (there := _committed(run))
        if number % 3 == 0:  # nothing is lost where there is still no room
            lives.begin(*words)
            _keep_full(lives, filler)
            _require_failed(lives, run, "No space left on device")
            assert there <= _committed(run)
        filler.unlink()
    _finish(lives, *words)
    _require_same(run, reference)
    record_property("full disk", 10)


def _require_failed(lives, run, reason):
    code, (line,) = lives.end()
    assert code == 2
    assert line.startswith("flaxnets: ")
    assert f"{run}/" in line
    assert reason in line


def _data(folder):
    """All files of data, of which some may be superseded."""
    return sorted((folder / "ocdbt.process_0" / "d").iterdir())


def _flip(path, draw):
    content = bytearray(path.read_bytes())
    for place in range(draw.randrange(16), len(content), 16):
        content[place] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _truncate(path, draw):
    """At least half is cut off: nothing may refer to the last bytes of a file of data."""
    os.truncate(path, draw.randrange(path.stat().st_size // 2))


def _delete(path, draw):
    path.unlink()


DAMAGE = [
    (parts, change)
    for change in (_flip, _truncate, _delete)
    for parts in (_data, lambda f: [f / "manifest.ocdbt"], lambda f: [f / "record.json"])
]


def test_corrupted(lives, tmp_path, reference, record_property):
    """A newest checkpoint that is damaged is named and passed over for the one before."""
    draw = random.Random(2)
    run = tmp_path / "run"
    words, damaged = (*MLP, "--out", run), None
    for parts, change in [*DAMAGE, DAMAGE[0]]:
        before = set(_checkpoints(run))
        lives.begin(*words)
        _wait(lives, lambda before=before: len({*_checkpoints(run)} - before) >= 2)
        time.sleep(draw.uniform(0, 0.05))
        os.kill(lives.process, signal.SIGKILL)
        _require_named(lives, -signal.SIGKILL, damaged)
        damaged = _checkpoints(run)[-1]
        for path in parts(damaged):
            change(path, draw)
        words = (*MLP[:2], "--resume", run)
    lives.begin(*words)
    _require_named(lives, 0, damaged)
    _require_same(run, reference)
    record_property("corrupted checkpoint", 10)


def _require_named(lives, code, damaged):
    ended, lines = lives.end()
    assert ended == code
    assert len(lines) == (damaged is not None)
    assert not lines or lines[0].startswith(f"{damaged} is broken and passed over: ")


def test_read_only(lives, disk, reference):
    """On a disk that has become read-only a run ends with one line; it goes on when it may."""
    run = disk / "run"
    lives.begin(*MLP, "--out", run)
    _wait(lives, lambda: _committed(run) >= 12)
    os.kill(lives.process, signal.SIGKILL)
    lives.end()
    there = _committed(run)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    lives.begin(*MLP[:2], "--resume", run)
    _require_failed(lives, run, "Read-only file system")
    assert _committed(run) == there
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    _finish(lives, *MLP[:2], "--resume", run)
    _require_same(run, reference)


def test_not_finite(lives, tmp_path):
    """The step at which the loss is not finite is named, and the state that is kept; twice."""
    run = tmp_path / "run"
    growing = ("--optimizer", "sgd", "--lr", "10", "--weight-decay", "1", "--save-every", "3")
    lives.begin(*MLP, *growing, "--out", run)
    ended = lives.end()
    step = _step(run) + 1
    kept = (step - 1) // 3 * 3
    assert kept >= 3
    code, (line,) = ended
    assert code == 2
    assert re.fullmatch(
        rf"flaxnets: the loss is (nan|inf) at step {step}; use a smaller learning rate; "
        rf"the state after step {kept} is kept",
        line,
    )
    assert _committed(run) == kept
    lives.begin(*MLP[:2], "--resume", run)
    assert lives.end() == ended
    assert _committed(run) == kept
