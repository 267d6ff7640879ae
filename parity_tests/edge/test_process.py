"""The process of a command: signals end it in one line, and its streams take what is said."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import contextlib, hashlib, signal, sys, time, types
import flaxnets
from flaxnets import __main__
from flaxnets.edge import process
flaxnets.cli = sys.modules["flaxnets.cli"] = types.ModuleType("flaxnets.cli")
def main():
{body}
flaxnets.cli.main = main
sys.exit(__main__.main())
"""
SLEEP = 'print("goes", flush=True); time.sleep(60)'
COMPUTE = """
print("goes", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # in C, where no handler is called
"""
CLEAN = """
with process.tidied():
    try:
        print("goes", flush=True)
        time.sleep(60)
    finally:
        print("in order", flush=True)
"""
SWALLOW = """
with process.tidied(), contextlib.suppress(BaseException):
    print("goes", flush=True)
    time.sleep(60)
time.sleep(60)
"""
SESSION = """
def ask(number, frame):
    print("saves", flush=True)
signal.signal(signal.SIGINT, ask)
signal.signal(signal.SIGTERM, ask)
print("goes", flush=True)
while True:
    time.sleep(0.01)
"""
BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture
def start():
    """Begin a command of these lines; it has said "goes"."""
    begun = []

    def start(body, *under):
        code = PROGRAM.format(body=textwrap.indent(body.strip(), "    "))
        process = subprocess.Popen(
            [*under, sys.executable, "-c", code],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        assert process.stdout.readline() == "goes\n"
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def _require_end(process, number, said=""):
    out, error = process.communicate(timeout=30)
    assert (process.returncode, out) == (128 + number, said)
    assert error == f"flaxnets: stopped by {signal.Signals(number).name}\n"


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize(("body", "said"), [(SLEEP, ""), (CLEAN, "in order\n"), (SWALLOW, "")])
def test_signal(start, body, said, number):
    """Exit code 130 or 143 and one line, after what has to be put in order, if there is any."""
    process = start(body)
    process.send_signal(number)
    _require_end(process, number, said)


def test_second_signal(start):
    """Another SIGINT ends even a process that computes outside Python, and so does time."""
    process = start(COMPUTE)
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.7)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _require_end(process, signal.SIGINT)
    assert time.monotonic() - began < 4
    process = start(COMPUTE)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _require_end(process, signal.SIGTERM)


def test_training_has_its_own(start):
    """Handlers that take over are left alone by one signal, and by one that is sent twice."""
    process = start(SESSION)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    time.sleep(6)  # longer than a process without them is given
    assert process.poll() is None
    assert process.stdout.readline() == "saves\n"
    assert process.stdout.readline() == "saves\n"
    process.send_signal(signal.SIGINT)
    process.stdout.readline()
    _require_end(process, signal.SIGINT)


def test_ignored_signal(start):
    """What is ignored, as under nohup, stays ignored."""
    ignoring = ("bash", "-c", 'trap "" INT; exec "$0" "$@"')
    process = start("print('goes', flush=True); time.sleep(1)", *ignoring)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0


def _ran(body, shell):
    code = PROGRAM.format(body=f"    {body}")
    line = f'"$0" -c "$1" {shell}'
    return subprocess.run(
        ["bash", "-c", line, sys.executable, code], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_encoding(monkeypatch, encoding):
    """What a stream cannot encode is escaped."""
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    done = _ran('print("☃\\udcff"); return 0', "")
    assert done.returncode == 0, done.stderr
    assert done.stdout in ("\\u2603\\udcff\n", "☃\\udcff\n")


def test_no_streams():
    """A file that is opened does not take the place of a stream that is closed."""
    body = 'sys.stderr.write(f"{open(sys.executable).fileno()}"); print(1); input; return 0'
    for closed in ("<&-", ">&-", "<&- >&-"):
        done = _ran(body, closed)
        assert done.returncode == 0, done.stderr
        assert int(done.stderr) > 2
    assert _ran(body, "2>&-").returncode == 0


def test_full_disk(monkeypatch):
    """What cannot be written in the end is told of by the command alone."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    done = _ran('print("x" * 9); sys.stderr.write("told"); return 2', ">/dev/full")
    assert (done.returncode, done.stderr) == (2, "told")
