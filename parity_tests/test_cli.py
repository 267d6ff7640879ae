"""The command line: what it prints, and that wrong input is one line and exit code 2."""

import functools
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import jax
import numpy as np
import pytest
import torch

import flaxnets
from flaxnets import bridge, cli, data, specs
from flaxnets.bench import case
from flaxnets.cli import main
from flaxnets.parity import mutations

ROOT = Path(__file__).parents[1]
LOADED = functools.cache(data.load)  # what many commands load


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "load", LOADED)

    def call(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # --help
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_list_and_show(run):
    """Tables on standard output."""
    code, out, _ = run("list")
    assert code == 0
    assert all(name in out for name in flaxnets.names())
    code, out, _ = run("show", "lenet", "--variant", "exercise", "--num-classes", "3")
    assert code == 0
    assert "(25, 9, 4, 4)" in out
    assert "(54, 3)" in out


def test_help(run):
    """Every command explains itself; spec fields are options."""
    assert run("--help")[0] == 0
    code, out, _ = run("train", "lenet", "--help")
    assert code == 0
    assert "--kernel-sizes" in out
    assert "--backend" in out


def test_train_and_convert(run, tmp_path):
    """A trained file is accepted by convert, from .safetensors and from .pt."""
    options = ["--data", "digits", "--image-size", "16", "--steps", "5", "--out", "run"]
    code, out, err = run("train", "lenet", *options)
    assert code == 0, err
    assert "test accuracy" in out
    trained = tmp_path / "run" / "model.safetensors"
    sized = ["--arch", "lenet", "--image-size", "16"]
    assert run("convert", trained, "a.safetensors", *sized)[0] == 0
    state = {name: torch.tensor(value) for name, value in bridge.read(trained).items()}
    torch.save(state, "m.pt")
    assert run("convert", "m.pt", "b.safetensors", *sized)[0] == 0
    for name, value in bridge.read(tmp_path / "b.safetensors").items():
        np.testing.assert_array_equal(value, state[name].numpy())


def test_train_names_the_variant_for_a_cpu(run, monkeypatch):
    """Where the default takes hours on a CPU, and only there."""

    def train(*_):
        raise specs.SpecError("-")

    monkeypatch.setattr(cli, "train", train)
    hint = "hint: on a CPU, --variant small is trained in minutes\n"
    assert run("train", "transformer")[1] == hint
    assert run("train", "transformer", "--variant", "small")[1] == ""
    assert run("train", "lenet")[1] == ""


def test_handover(run, tmp_path):
    """From Flax to torch and back by the command line: each run holds the lines of all before."""
    train = [
        "train",
        "lenet",
        "--image-size",
        "16",
        "--data",
        "digits",
        "--steps-per-dispatch",
        "1",
    ]
    assert run(*train, "--backend", "flax", "--steps", "2", "--out", "A")[0] == 0
    train = ["train", "lenet"]
    code, out, err = run(
        *train, "--backend", "torch", "--resume", "A", "--steps", "2", "--out", "B"
    )
    assert code == 0, err
    assert "wrote B" in out
    assert run(*train, "--backend", "flax", "--resume", "B", "--steps", "2", "--out", "C")[0] == 0
    lines = [json.loads(x) for x in (tmp_path / "C" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 6]
    for words, message in [
        (["--backend", "torch", "--resume", "A"], "name another folder for the rest with --out"),
        (["--resume", "A", "--out", "D"], "has taken its 2 steps; say how many more with --steps"),
    ]:
        code, _, err = run(*train, *words)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
    assert not (tmp_path / "D").exists()


def test_best_weights(run):
    """A run that ends with earlier weights says so beside their figures."""
    command = "train mlp --in-features 64 --data digits --steps 40 --lr 1e-9 --out r"
    code, out, _ = run(*command.split(), "--eval-every", "5", "--patience", "2")
    assert code == 0
    assert "these are the best weights, after step 5 of 15" in out


def test_bench_writes_its_files(run, tmp_path, monkeypatch):
    """Rows of contenders that ran and of one that could not, as a table, JSON and a page."""
    monkeypatch.setattr(case, "SIZES", {"feedforward": ("tiny", 4)})
    monkeypatch.setattr(case, "TURN", 0.01)
    monkeypatch.setattr("flaxnets.bench.rounds.ROUNDS", 1)
    monkeypatch.setattr("flaxnets.bench.CONTENDERS", ("flaxnets", "torch eager", "nobody"))
    code, out, err = run("bench", "feedforward", "--json", "b.json", "--html", "b.html")
    assert code == 0, err
    assert "geometric mean" in out
    ours, torch_eager, nobody = json.loads((tmp_path / "b.json").read_text())["cases"]
    ratio = torch_eager["step_ms"] / ours["step_ms"]
    assert ours["ratio_to_torch_eager"] == pytest.approx(ratio)
    assert ours["contender"] == "flaxnets"
    assert nobody["step_ms"] is None
    assert nobody["reason"] == "KeyError: 'nobody'"
    assert "<table" in (tmp_path / "b.html").read_text()


def test_parity_writes_its_files(run, tmp_path):
    """The documented JSON, a page and JUnit's XML; the slowest checks; exit code 0."""
    code, out, err = run("parity", "mlp", "--checks", "forward", "--json", "p.json",
                         "--html", "p.html", "--junit", "p.xml", "--platform", "cpu")  # fmt: skip
    assert code == 0, err
    assert "pass" in out
    results = json.loads((tmp_path / "p.json").read_text())["results"]
    assert {(row["architecture"], row["check"]) for row in results} == {("mlp", "forward")}
    assert {row["variant"] for row in results} == {"default", "tiny"}
    assert "<table>" in (tmp_path / "p.html").read_text()
    suites = ElementTree.parse(tmp_path / "p.xml").getroot()
    assert {suite.get("name") for suite in suites} == {"mlp-default", "mlp-tiny"}
    assert "slowest checks" in out


def test_parity_fails(run, monkeypatch):
    """A fault gives exit code 1, and is in the table."""
    from flaxnets.layers import Linear

    original = Linear.__call__
    monkeypatch.setattr(Linear, "__call__", lambda self, x: original(self, x) * (1 + 1e-7))
    code, out, _ = run("parity", "mlp", "--checks", "forward")
    assert code == 1
    assert "FAIL" in out


class Outcome(NamedTuple):
    """What became of a planted fault."""

    name: str
    caught: bool
    by: str
    place: str = ""
    cause: str = ""


@pytest.mark.parametrize(("caught", "code"), [(True, 0), (False, 1)])
def test_mutations(run, tmp_path, monkeypatch, caught, code):
    """A table, the score and JSON; a fault that survives gives exit code 1."""

    def run_all(progress):
        faults = [Outcome("tanh [GELU]", True, "forward", "act1", "GELU"), Outcome("x", caught, "")]
        return list(progress(faults))

    monkeypatch.setattr(mutations, "run_all", run_all, raising=False)
    found, out, _ = run("parity", "--mutations", "--json", "m.json")
    assert found == code
    assert "tanh [GELU]" in out
    assert f"{1 + caught} of 2 caught" in out
    content = json.loads((tmp_path / "m.json").read_text())
    assert content["score"] == f"{1 + caught} of 2"
    results = content["mutations"]
    assert results[0] == {
        "name": "tanh [GELU]",
        "caught": True,
        "by": "forward",
        "place": "act1",
        "cause": "GELU",
    }
    assert results[1]["caught"] is caught


def test_no_mutation_is_no_score(run, monkeypatch):
    """Nothing planted proves nothing."""
    monkeypatch.setattr(mutations, "run_all", lambda progress: [], raising=False)
    assert run("parity", "--mutations")[0] == 1


def _lenet_state(**changes):
    state = {k: torch.tensor(v) for k, v in bridge.state_dict(flaxnets.create("lenet")).items()}
    return state | changes


class Malicious:
    """A pickle that would write a file when it is loaded."""

    def __reduce__(self):
        return (open, ("harm", "w"))


def _write_files(folder):
    torch.save(_lenet_state(), folder / "good.pt")
    (folder / "cut.pt").write_bytes((folder / "good.pt").read_bytes()[:5000])
    torch.save({"weights": Malicious()}, folder / "evil.pt")
    torch.save([1, 2], folder / "list.pt")
    torch.save(_lenet_state(**{"fc3.bias": torch.full((10,), torch.nan)}), folder / "nan.pt")
    torch.save(_lenet_state(**{"fc3.bias": torch.zeros(10).double()}), folder / "double.pt")
    missing = _lenet_state(extra=torch.zeros(1))
    del missing["fc3.bias"]
    torch.save(missing, folder / "keys.pt")
    bridge.save(flaxnets.create("lenet"), folder / "good.safetensors")
    content = (folder / "good.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(content[:-1])


CONVERT = ("dst.safetensors", "--arch", "lenet")
WRONG = [
    (["frobnicate"], "command 'frobnicate' is unknown"),
    (["train"], "which architecture?"),
    (["train", "lennet"], "architecture 'lennet' is unknown; did you mean 'lenet'"),
    (["train", "lenet", "--variant", "huge"], "variant 'huge' is unknown"),
    (["train", "lenet", "--image-size", "5"], "image_size 5 leaves no pixel"),
    (["train", "lenet", "--image-size", "big"], "--image-size"),
    (["train", "lenet", "--nonsense", "1"], "--nonsense"),
    (["train", "lenet", "--channels", "6"], "--channels"),
    (["train", "lenet", "--optimizer", "lion"], "lion"),
    (["train", "lenet", "--data", "imagenet"], "data set 'imagenet' is unknown"),
    (["train", "lenet", "--data", "x", "--data-dir", "nowhere"], "nowhere is not a folder"),
    (["train", "lenet", "--steps", "0"], "steps 0 is too small"),
    (["train", "lenet", "--patience", "2"], "patience 2 counts evaluations; give eval_every"),
    (["train", "lenet", "--ema", "1.5"], "ema 1.5 is not between 0 and 1"),
    (["train", "lenet", "--accumulate", "5", "--batch-size", "64"], "cut into 5 equal parts"),
    (["train", "vae", "--data", "digits", "--label-smoothing", "0.1"], "vae is trained for vae"),
    (["train", "lenet", "--mesh", "rows=2"], "'rows=2' is not data=N or fsdp=N"),
    (["train", "lenet", "--mesh", "data=999"], "wants 999 devices, there are"),
    (["train", "lenet", "--platform", "tpu"], "platform 'tpu' is absent"),
    (["train", "lenet", "--resume", "nowhere"], "nowhere is no run to resume: No such file"),
    (["train", "lenet", "--num-processes", "2"], "several processes write to one folder"),
    (["train", "lenet", "--init", "nothing.safetensors"], "nothing.safetensors"),
    (["bench", "lenet", "--contenders", "tensorflow"], "contender 'tensorflow' is unknown"),
    (["train", "lenet", "--seed", str(2**63)], "seed 9223372036854775808 is too large"),
    (["train", "lenet", "--betas", "0.9", "1"], "betas (0.9, 1.0) are not from 0 to below 1"),
    (["train", "lenet", "--warmup", str(2**31)], "warmup 2147483648 is too large"),
    (["train", "feedforward", "--hidden-size", str(10**11)], "hidden_size 100000000000 is out of"),
    (["train", "feedforward", "--hidden-size", str(10**9)], "times 111,000,000,010 weights take"),
    (["train", "lenet", "--image-size", "30000"], "raise it with --data-limit"),
    (["convert", "good.pt", *CONVERT, "--dense-sizes", str(10**9), "9"], "1 times 586,000,001,145"),
    (["train", "lenet", "--noise", "0.1"], "noise is of reconstruction; lenet"),
    (["train", "lenet", "--mesh", f"data={'9' * 5000}"], "is not data=N or fsdp=N"),
    (
        ["train", "lenet", "--out", "x", "--coordinator", "a:b"],
        "coordinator 'a:b' is not host:port",
    ),
    (["train", "lenet", "--out", "x", "--num-processes", str(2**31)], "2147483648 is out of range"),
    (["train", "lenet", "--mesh", ""], "--mesh '': an argument is empty"),
    (["train", "lenet", "--out="], "lenet '--out=': an argument is empty"),
    (["train", "lenet", "--backend", "torch", "--steps-per-dispatch", "2"], "is of backend flax"),
    (["train", "lenet", "--schedule-steps", "900"], "of a schedule or a warm-up; give one"),
    (["train", "lenet", "--data", "x\x1b[31m\u202e"], "data set 'x\\x1b[31m\\u202e' is unknown"),
    (["convert", "good.pt", *CONVERT, "--arch"], "--arch: expected one argument"),
    (["parity", "mlp", "--checks"], "--checks has no value; give one, or leave it out"),
    (["parity", "mlp", "--json", "/dev/full"], "/dev/full is no plain file"),
    (["bench", "mlp", "--contenders"], "--contenders has no value"),
    (["train", "lenet", "--lr", "-1"], "lr -1.0 is not a positive number"),
    (["train", "lenet", "--batch-size", "5000"], "batch_size 5000 is not between"),
    (["train", "lenet", "--num-classes", "-3"], "num_classes -3 is too small"),
    (["train", "conv_net", "--in-channels", "0"], "in_channels 0 is too small"),
    (["train", "vae", "--in-shape", "1", "2", "2"], "in_shape (1, 2, 2) leaves no pixel"),
    (["train", "gan", "--in-shape", "1", "48", "48"], "in_shape (1, 48, 48) is no square"),
    (["train", "lenet", "--steps", "3", "--epochs", "3"], "give one of them"),
    (["train", "lenet", "--data", "diabetes"], "lenet is trained towards labels"),
    (["train", "lenet", "--num-classes", "3"], "mnist has 10 classes but num_classes is 3"),
    (["train", "lenet", "--lr", "1e30", "--data", "digits"], "the loss is"),
    (["train", "mlp", "--out", "good.pt"], "good.pt is there and not empty"),
    (["parity", "alexnet"], "architecture 'alexnet' is unknown"),
    (["parity", "--checks", "speed"], "check 'speed' is unknown"),
    (["parity", "mlp", "--json", "no/where.json"], "no is no folder"),
    (["parity", "mlp", "--junit", "no/where.xml"], "no is no folder"),
    (["parity", "mlp", "--html", "."], ". is a folder"),
    (["parity", "mlp", "--platform", "tpu"], "platform 'tpu' is absent; JAX runs on"),
    (["parity", "mlp", "--platform", "abacus"], "--platform"),
    (["parity", "mlp", "--mutations"], "--mutations goes with --json and --platform only"),
    (["parity", "--mutations", "--html", "m.html"], "--mutations goes with"),
    (["parity", "--mutations", "--checks", "forward"], "--mutations goes with"),
    (["doctor", "--json", "no/where.json"], "no is no folder"),
    (["doctor", "lenet"], "lenet"),
    (["bench", "alexnet"], "architecture 'alexnet' is unknown"),
    (["bench", "mlp", "--json", "no/where.json"], "no is no folder"),
    (["convert", "absent.pt", *CONVERT], "absent.pt"),
    (["convert", "good.pt", "dst.pt", "--arch", "lenet"], "does not end in .safetensors"),
    (["convert", "good.pt", "dst.safetensors"], "which architecture?"),
    (["convert", "good.pt", "dst.safetensors", "--arch", "mlp"], "missing out.bias"),
    (["convert", "cut.pt", *CONVERT], "cut.pt is not a safe torch checkpoint"),
    (["convert", "evil.pt", *CONVERT], "evil.pt is not a safe torch checkpoint"),
    (["convert", "list.pt", *CONVERT], "holds no state_dict"),
    (["convert", "nan.pt", *CONVERT], "NaN or infinity in fc3.bias"),
    (["convert", "double.pt", *CONVERT], "fc3.bias has dtype float64, not float32"),
    (["convert", "keys.pt", *CONVERT], "missing fc3.bias; unexpected extra"),
    (["convert", "cut.safetensors", *CONVERT], "is not a whole safetensors file"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda value: str(value)[:60])
def test_wrong_input(run, tmp_path, arguments, message):
    """One line on standard error, exit code 2, no traceback, no file half-written."""
    _write_files(tmp_path)
    code, _, err = run(*arguments)
    assert code == 2
    assert message in err
    assert err.startswith("flaxnets: ")
    assert err.count("\n") == 1
    assert err.removesuffix("\n").isprintable()
    assert not (tmp_path / "dst.safetensors").exists()
    assert not (tmp_path / "harm").exists()
    assert not list(tmp_path.glob("**/model.safetensors"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("Unable to allocate 8 TiB"), "the memory does not suffice: Unable to alloc"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), "RESOURCE_EXHAUSTED"),
    ],
)
def test_out_of_memory(run, monkeypatch, error, message):
    """What does not fit after all ends in one line."""

    def list_architectures():
        raise error

    monkeypatch.setattr("flaxnets.summary.list_architectures", list_architectures)
    code, _, err = run("list")
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_bug_shows(run, monkeypatch):
    """What nobody expects is not taken for wrong input."""
    monkeypatch.setattr("flaxnets.summary.list_architectures", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("list")


def test_link_to_a_file(run, tmp_path, monkeypatch):
    """A result is written to the file that a link of the user's names, not in the link's place."""
    monkeypatch.setattr(mutations, "run_all", lambda progress: [], raising=False)
    (tmp_path / "link").symlink_to("m.json")
    assert run("parity", "--mutations", "--json", "link")[0] == 1
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "m.json").read_text().startswith("{")


@pytest.mark.parametrize("command", ["--version", "list"])
def test_streams(command):
    """A full disk is told of in one line; who stops reading is not bothered."""
    words = f"{sys.executable} -m flaxnets {command}"
    for stream, code, said in (
        (">/dev/full", 2, "flaxnets: [Errno 28] No space left on device\n"),
        ("| true", 128 + signal.SIGPIPE, ""),
        (">&-", 0, ""),
    ):
        line = ["bash", "-c", f"set -o pipefail; {words} {stream}"]
        done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
        assert (done.returncode, done.stderr) == (code, said), stream


def test_entry_point(tmp_path):
    """As a process: a mistake ends with code 2 and without a traceback."""
    command = [sys.executable, "-m", "flaxnets", "train", "lenet", "--image-size", "3"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_convert_says_what_names_have_in_common(run, tmp_path):
    """A prefix too many is one short line; with --verbose a line for every name stands before."""
    state = {f"module.{name}\x1b": value for name, value in _lenet_state().items()}
    torch.save(
        state | {f"module.{name}": x for name, x in _lenet_state().items()}, tmp_path / "a.pt"
    )
    command = ("convert", tmp_path / "a.pt", tmp_path / "b.safetensors", "--arch", "lenet")
    code, _, error = run(*map(str, command))
    assert (code, error.count("\n")) == (2, 1)
    assert "10 of 20 names have the unexpected prefix 'module.'" in error
    code, _, error = run(*map(str, command), "--verbose")
    lines = error.splitlines()
    assert (code, len(lines)) == (2, 31)
    assert lines[0] == "missing conv1.bias" or lines[0].startswith("unexpected ")
    assert all(line.isprintable() for line in lines)
    assert not (tmp_path / "b.safetensors").exists()
