"""`flaxnets translate`: the file that it writes, and one line for what will not do."""

import importlib.util
import inspect

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flaxnets import bridge
from flaxnets.cli import main
from parity_tests.swap.twin import user_models

FILE = inspect.getsourcefile(user_models)


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run the command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = main(["translate", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def _imported(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_file(run, tmp_path):
    """The written file, imported and given the weights, and the module."""
    out = tmp_path / "twin.py"
    options = ["--args", 10, "--kwargs", "reduced_size=8", "encoding_size=5", "--out", out]
    code, told, err = run(f"{FILE}:SeedAutoencoder", "--input", "2,10", *options)
    assert (code, told, err) == (0, f"wrote {out}\n", "")
    twin = _imported(out).SeedAutoencoder(rngs=nnx.Rngs(0))
    module = user_models.SeedAutoencoder(10, 8, 5)
    bridge.load_state_dict(twin, module.state_dict())
    x = torch.randn(3, 10)
    np.testing.assert_allclose(twin(jnp.asarray(x.numpy())), module(x).detach(), atol=1e-6)


def test_constants(run, tmp_path):
    """What is too large to be written out lies beside the file."""
    out = tmp_path / "shared.py"
    target = f"{FILE}:Shared"
    code, told, err = run(target, "--input", "3,5:int<9")
    assert (code, told) == (2, "")
    assert err == "flaxnets: table: too large to be written out; use --out\n"
    assert run(target, "--input", "3,5:int<9", "--out", out)[0] == 0
    table = bridge.read(out.with_suffix(".safetensors"))["table"]
    np.testing.assert_array_equal(_imported(out).Shared(rngs=nnx.Rngs(0)).table, table)


def test_standard_output(run):
    """Without --out the source is all that is printed."""
    code, told, err = run(f"{FILE}:SeedAutoencoder", "--input", "2,4", "--args", 4, 3, 2)
    assert (code, err) == (0, "")
    assert told.startswith('"""SeedAutoencoder, translated from user_models.SeedAutoencoder."""')
    compile(told, "twin.py", "exec")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x.py:A", "--input", "1"], "x.py is no file"),
        (["A", "--input", "1"], "'A' is not of the form FILE.py:Class"),
        ([f"{FILE}:Absent", "--input", "1"], "has no torch.nn.Module of the name Absent"),
        ([f"{FILE}:SeedRNN", "--input", "2,x"], "--input '2,x' is not of the form"),
        ([f"{FILE}:SeedRNN", "--input", "2,3"], "SeedRNN cannot be built: TypeError"),
        ([f"{FILE}:SeedRNN", "--input", "2,3", "--kwargs", "a"], "--kwargs 'a' is not of the form"),
        ([f"{FILE}:Undecided", "--input", "2,3"], "if x.sum() > 0:"),
    ],
)
def test_wrong(run, arguments, said):
    """One line on standard error and exit code 2."""
    code, told, err = run(*arguments)
    assert (code, told) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_broken_file(run, tmp_path):
    """A file that cannot be run is told with what it raises."""
    (tmp_path / "broken.py").write_text("import torch\nraise ValueError('no')\n")
    code, _, err = run("broken.py:A", "--input", "1")
    assert (code, err) == (2, "flaxnets: broken.py cannot be run: ValueError: no\n")
