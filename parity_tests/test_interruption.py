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
    *("train", "mlp", "--data", "digits", "--in-features", "64", "--hidden-sizes", "24", "16", "12"),
    *("--steps", "400", "--save-every", "6", "--steps-per-dispatch", "4", "--batch-size", "32"),
    *("--ema", "0.9", "--schedule", "cosine", "--warmup", "9"),
)
VAE = (
    *("train", "vae", "--data", "digits", "--in-shape", "1", "8", "8", "--channels", "4", "5"),
    *("--batch-size", "16", "--clip-norm", "5", "--save-every", "5"),
)
# Batch statistics, random numbers, evaluations of which the best counts, parts of batches.
FLAX_VAE = (*VAE, "--steps", "300", "--eval-every", "15", "--accumulate", "2")
TORCH_VAE = (*VAE, "--steps", "160", "--backend", "torch", "--ema", "0.9")


class Lives:
    """Starts runs of the command line in processes of their own, one at a time."""

    def __init__(self, cache):
        settings = {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
            "JAX_PLATFORMS": "cpu",
            "OMP_NUM_THREADS": "1",
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


def _lines(run):
    """What was measured, without the time that it took and a line that is being written."""
    try:
        text = (run / "metrics.jsonl").read_text()
    except FileNotFoundError:
        return []
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [{name: x for name, x in line.items() if name != "seconds"} for line in lines]


def _step(run):
    lines = _lines(run)
    return lines[-1]["step"] if lines else 0


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


def _finish(lives, *words):
    lives.begin(*words)
    assert lives.end() == (0, [])


def _require_same(run, reference):
    """Weights, figures and files are those of the run that was left alone."""
    assert _lines(run) == _lines(reference)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (run, reference)]
    assert weights[0] == weights[1]
    names = [sorted(path.name for path in folder.iterdir()) for folder in (run, reference)]
    assert names[0] == names[1]
    assert not _is_saving(run)


@pytest.mark.parametrize(
    ("words", "kills", "last"),
    [
        (MLP, 16, "checkpoints"),
        (FLAX_VAE, 16, "model.safetensors"),
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
            _wait(lives, lambda: _step(run) > begun)
            startup = time.monotonic() - began
            _wait(lives, lambda: _step(run) >= target and _is_saving(run))
        elif number % 3 == 1:
            _wait(lives, lambda: _step(run) >= target)
            time.sleep(draw.uniform(0, 0.02))
        else:
            time.sleep(draw.uniform(0, startup))
        os.kill(lives.process, signal.SIGKILL)
        assert lives.end() == (-signal.SIGKILL, [])
        assert _committed(run) >= begun
        saving += _is_saving(run)
    _finish(lives, *words[:2], "--resume", run)
    _require_same(run, reference)
    assert 3 * saving >= kills
    record_property("SIGKILL", kills)
    record_property("of them while saving", saving)
