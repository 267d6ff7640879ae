"""Attacks on command lines: what is drawn for every option by its type, and signals at any moment.

`FLAXNETS_FUZZ_OUTPUT=FILE` keeps what all of them have said.
"""

import contextlib
import dataclasses
import functools
import io
import os
import shlex
import signal
import subprocess
import sys
import time
import types
import typing
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pytest
from hypothesis import strategies as st

import flaxnets
from flaxnets import (
    bench,
    bridge,
    cli,
    data,
    doctor,
    environment,
    parity,
    specs,
    summary,
)
from flaxnets.experiment import demo, run
from flaxnets.experiment.recipe import Recipe
from flaxnets.experiment.session import Place
from flaxnets.parity import mutations
from flaxnets.swap.twin import command
from flaxnets.training import compilation_cache
from flaxnets.training.loop import TrainingError
from parity_tests.fuzz import require_line, untouched

ROOT = Path(__file__).parents[1]
NAMES = flaxnets.names()
SMALL = ["--variant", "tiny"]
ORDINARY = {
    int: """-1 0 1 2 3 7 1000 2147483647 2147483648 9223372036854775808 -9223372036854775809 1e3
        1.5 nan x 0x10 1_000 ٣ -- None True""",
    float: "nan inf -inf -1 -0.0 0 0.5 1 2 1e308 1e400 1e-320 0,5 x -- None",
    str: """x lenet mlp digits data=1 fsdp=1,data=1 data=999 forward cpu nan 1 -1 - -- --x None
        good.npz 1,3,8,8 2,7:int<50 99999999999999999999 localhost:1 a:b:c x=1""",
    Path: """there/ missing missing/x.json there/x good.safetensors good.pt good.npz
        dst.safetensors net.py pipe full link . / /proc/self/mem -- -x None""",
    bool: "x True no",
}
STRANGE: dict[Any, list[str]] = {
    int: ["", " 1", "9" * 5000],
    float: ["", "9" * 5000],
    str: ["", "\x1b[31mred\x07", "\u202egnp", "\udcff", "a\nb", "[bold]x[/", "%s{0}", "x" * 5000],
    Path: ["", "x" * 300, "a\nb.json", "\udcff.json", "\x1b[2J"],
    bool: [""],
}
WORDS: dict[Any, list[str]] = {
    kind: [*words.split(), *STRANGE[kind]] for kind, words in ORDINARY.items()
}


def _options(kind: Any, name: str) -> list[tuple[str, Any]]:
    """Every option of a command, or "" for a word without one, and its type."""
    nested = {"spec": type(specs.make(name)), "recipe": Recipe, "place": Place}
    found = []
    hints = typing.get_type_hints(kind)
    told = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        if field.name in nested and "spec" in kind.__dataclass_fields__:
            found += _options(nested[field.name], name)
        else:
            positional = "Positional" in str(told[field.name])
            option = "" if positional else f"--{field.name.replace('_', '-')}"
            found.append((option, hints[field.name]))
    return found


def _values(hint: Any) -> Any:
    """Words for an option of a type: of it, out of range, of another type, none, or too many."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([_values(kind) for kind in arguments if kind is not type(None)])
    if origin is tuple:
        one = _values(arguments[0])
        return st.lists(one, max_size=4).map(
            lambda several: [word for ws in several for word in ws]
        )
    if origin is Literal:
        return st.sampled_from([*map(str, arguments), "x", "", "None"]).map(lambda word: [word])
    words = st.sampled_from(WORDS[hint]).map(lambda word: [word])
    return st.one_of(st.just([]), st.just([]), words) if hint is bool else words


@functools.cache
def _arguments(kind: str, name: str) -> Any:
    """One option of a command with what follows it."""
    options = [one for one in _options(cli.COMMANDS[kind], name) if one[0]]
    if not options:
        return st.just(["--x"])

    @st.composite
    def draw_one(draw: Any) -> list[str]:
        option, hint = draw(st.sampled_from(options))
        words = draw(_values(hint))
        if draw(st.integers(0, 9)) == 0:
            strange = [option[:-1], option.replace("-", "_"), f"--no{option[1:]}", f"{option}x"]
            option = draw(st.sampled_from([*strange, option.upper(), "--x", "-h", "--help"]))
        elif draw(st.integers(0, 9)) == 0:
            words = []
        if words and draw(st.booleans()):
            return [f"{option}={words[0]}", *words[1:]]
        return [option, *words]

    return draw_one()


@st.composite
def command_lines(draw: Any) -> list[str]:
    """A command, what it is given, and one to three of its options."""
    kind = draw(st.sampled_from([*cli.COMMANDS, "train", "train", "train", "convert", "show"]))
    name = draw(st.sampled_from(NAMES))
    if draw(st.integers(0, 49)) == 0:
        return draw(st.lists(st.sampled_from([*WORDS[str], *cli.COMMANDS, "--version", "-h"])))
    paths, anything = st.sampled_from(WORDS[Path]), st.sampled_from([*NAMES, *WORDS[str]])
    words = {
        "show": [name, *SMALL],
        "train": [name, *draw(st.sampled_from([SMALL, []]))],
        "parity": [name],
        "bench": [name],
        "convert": [draw(paths), draw(paths), "--arch", name, *SMALL],
        "translate": ["net.py:Net", "--input", "2,3"],
    }.get(kind, [])
    if draw(st.integers(0, 9)) == 0:
        words = [draw(anything), *words[1:]]
    for _ in range(draw(st.integers(0, 3))):
        words = [*words, *draw(_arguments(kind, name))]
    return [kind, *words]


class ReachedError(TrainingError):
    """Everything that was asked for could be."""


def _small(load: Any) -> Any:
    """Data sets by name with few examples, read once."""

    @functools.cache
    def by_name(name: str) -> data.Dataset:
        found = load(name)
        rows = slice(0, 40)
        inputs = (found.train_inputs, found.train_targets, found.test_inputs, found.test_targets)
        if getattr(found.train_inputs, "ndim", 2) == 1:  # a series, whose test part contains it
            return found
        train, labels, test, truth = jax.tree.map(lambda x: x[rows], inputs)
        return dataclasses.replace(
            found, train_inputs=train, train_targets=labels, test_inputs=test, test_targets=truth
        )

    return lambda name, where, limit: load(name, where, limit) if where else by_name(name)


def _stop(*_: Any, **__: Any) -> Any:
    raise ReachedError("would train")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with files to name, in which nothing is computed for long."""
    folder = tmp_path / "work"
    (folder / "there").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").mkdir()  # a link that a user names as a file to write to is followed
    monkeypatch.chdir(folder)
    bridge.save(flaxnets.create("mlp", variant="tiny"), folder / "good.safetensors")
    (folder / "good.pt").write_bytes(b"PK")
    np.savez(folder / "good.npz", x=np.zeros((4, 8, 8, 1)), y=np.arange(4))
    (folder / "net.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Linear):\n"
        "    def __init__(self): super().__init__(3, 2)\n"
    )
    os.mkfifo(folder / "pipe")
    (folder / "full").symlink_to("/dev/full")
    (folder / "link").symlink_to(tmp_path / "linked" / "absent")
    report = parity.Report([])
    for owner, name, stub in (
        (run, "_engine", _stop),
        (run.data, "load", _small(data.load)),
        (jax.distributed, "initialize", _stop),
        (environment, "choose", environment.device),
        (compilation_cache, "enable", lambda: None),
        (parity, "check_architecture", lambda *_: report),
        (mutations, "run_all", lambda progress: []),
        (bench, "time_cases", lambda *_, **__: []),
        (bench, "_overhead", lambda: None),
        (demo, "demo", lambda *_: 0),
        (doctor, "examine", lambda *_: doctor.Diagnosis([], {}, [])),
        (summary, "_flops", lambda *_: {"": 0.0}),
        (command, "checked", lambda *_: (None, types.SimpleNamespace(source="", constants={}))),
    ):
        monkeypatch.setattr(owner, name, stub)
    return tmp_path


def _keep(arguments: list[str], code: Any, said: str) -> None:
    """Add what a command has said to the file of all."""
    if file := os.environ.get("FLAXNETS_FUZZ_OUTPUT"):
        with open(file, "a", errors="backslashreplace") as all_:
            all_.write(f"$ flaxnets {shlex.join(arguments)}\n{said}exit code {code}\n")


def _require_answer(code: Any, error: str) -> None:
    assert code in (0, 1, 2), code
    assert "Traceback" not in error
    if code == 2:
        assert error.endswith("\n")
        require_line(error.removesuffix("\n")[-2000:])
        assert error.startswith(("flaxnets: ", "usage: "))


def _check(arguments: list[str]) -> None:
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code = cli.main(arguments)
        except SystemExit as stop:  # --help
            code = stop.code or 0
    said = error.getvalue()
    _keep(arguments, code, out.getvalue() + said)
    if "--verbose" in arguments:  # one finding a line, and then the error
        *findings, last = said.splitlines(keepends=True) or [""]
        assert all(finding.removesuffix("\n").isprintable() for finding in findings)
        said = last
    if arguments:
        _require_answer(code, said)


def test_in_one_process(place, attack):
    """Any command line is obeyed or refused in one line; no file outside its folder is touched."""
    with untouched(place / "elsewhere"):
        attack("command lines", command_lines(), _check, 150)
    assert not Path("/dev/full").is_file()


HARMLESS = ("show", "list", "train", "convert", "translate")


def _fewer(tries: int) -> int:
    """So many that a hundredfold of attacks is a twentyfold of these, which are processes."""
    return tries if "FLAXNETS_FUZZ" not in os.environ else max(1, tries // 5)


def test_in_a_shell(place, attack):
    """The same for a process that a shell starts, whatever its streams are."""
    streams = ["", ">/dev/full", ">&-", "2>&-", "<&-", "| true"]

    def check(drawn: tuple[list[str], str, str]) -> None:
        arguments, stream, encoding = drawn
        words = [word.encode(errors="surrogateescape") for word in map(shlex.quote, arguments)]
        line = b" ".join([shlex.quote(sys.executable).encode(), b"-m", b"flaxnets", *words])
        done = subprocess.run(
            ["bash", "-c", b"set -o pipefail; " + line + b" " + stream.encode()],
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
            stdin=subprocess.DEVNULL,
        )
        said = (done.stdout + done.stderr).decode(errors="backslashreplace")
        _keep([*arguments, stream], done.returncode, said)
        assert "Traceback" not in said
        assert done.returncode in (0, 1, 2, 128 + signal.SIGPIPE), said

    lines = command_lines().filter(lambda line: line and (line[0] in HARMLESS or line[-1] == "--x"))
    # Training would take long, but not for networks that there are no data for.
    lines = lines.map(lambda line: [*line, *["--data", "x"] * (line[0] == "train")])
    drawn = st.tuples(
        lines, st.sampled_from(streams), st.sampled_from(["utf-8", "ascii", "latin-1"])
    )
    attack("command lines in a shell", drawn, check, _fewer(6))


def _hears(process: subprocess.Popen) -> bool:
    """Whether a process has a handler of SIGTERM, which Python alone has not."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(sys.platform != "linux", reason="what a process hears is read from /proc")
def test_signals(tmp_path, attack):
    """A signal at any moment ends a command in one line, with the exit code that says which."""
    train = ["train", "lenet", "--data", "digits", "--steps", "1000000", "--out"]
    choices = [train, train, ["show", "bert"], ["parity", "mlp"], ["bench", "mlp"]]

    def check(drawn: tuple[list[str], int, float]) -> None:
        arguments, number, delay = drawn
        if arguments is train:
            arguments = [*train, f"run{time.monotonic_ns()}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "flaxnets", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not _hears(process):
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(number)
        out, error = process.communicate(timeout=100)
        _keep([*arguments, f"# {signal.Signals(number).name} after {delay:.3f} s"],
              process.returncode, out + error)  # fmt: skip
        assert "Traceback" not in out + error
        if process.returncode or "--out" in arguments:  # else it was done before
            assert process.returncode == 128 + number, error
            assert f"stopped by {signal.Signals(number).name}" in error
            assert error.count("\n") == 1, error

    drawn = st.tuples(
        st.sampled_from(choices),
        st.sampled_from([signal.SIGINT, signal.SIGTERM]),
        st.floats(0, 9).map(lambda x: x * x / 9),
    )
    attack("signals", drawn, check, _fewer(6))
