"""Folders of runs that somebody else has filled: they open, or one line says why not."""

import json
import os

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from hypothesis import strategies as st

import flaxnets
from flaxnets import bridge, specs
from flaxnets.layers import init
from parity_tests import fuzz
from parity_tests.bridge.test_files import contents

SPEC = specs.make("linear_network", "tiny")
BACKENDS = pytest.mark.parametrize("backend", ["flax", "torch"])


@pytest.fixture(scope="module")
def weights():
    """Of a network that may have been trained."""
    return bridge.state_dict(flaxnets.build(SPEC))


@pytest.fixture
def run(tmp_path, weights):
    """A run's folder, beside another user's file."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "spec.json").write_text(SPEC.to_json())
    (folder / "run.json").write_text('{"finished": true}')
    bridge.write(weights, folder / "model.safetensors")
    return folder


def _opens_in_one_line(run, backend, said):
    with pytest.raises(ValueError, match=said) as caught, fuzz.memory_below(64 << 20):
        flaxnets.load(run, backend)
    fuzz.require_line(str(caught.value))


@BACKENDS
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("run.json", "[" * 100_000, r"is no run: .*run\.json: not JSON"),
        ("run.json", "[]", r"is no run: .*run\.json: +should be"),
        ("run.json", "{", r"is no run: .*run\.json: not JSON"),
        ("run.json", '{"finished": "no"}', "finished should be a valid boolean"),
        ("run.json", '{"finished": false}', "has not finished"),
        ("spec.json", '{"a":' * 100_000, "is no run: not a spec: nested too deep"),
        ("spec.json", "3", "is no run: "),
        ("spec.json", "{}", "is no run: not a spec"),
        ("spec.json", '{"architecture": [], "spec": {}}', "is no run: "),
        ("spec.json", '{"architecture": "mlp", "spec": {"name": 1}}', "is no run: "),
        ("spec.json", '{"architecture": "\\u001b[31m", "spec": {}}', "is no run: "),
        ("spec.json", SPEC.replace(hidden_size=2**31 - 1).to_json(), r"weights|built|shape"),
        ("spec.json", SPEC.to_json().replace("5", f"{2**70}"), "is out of range"),
    ],
)
def test_descriptions(run, backend, name, text, said):
    """JSON of any depth, type and size of numbers is one line, and takes no memory."""
    (run / name).write_text(text)
    _opens_in_one_line(run, backend, said)


@BACKENDS
def test_weights(run, backend, weights):
    """Weights that are no real numbers, of two dtypes, not finite, too many or cut are one line."""
    path = run / "model.safetensors"
    first, second = weights
    for state, said in (
        ({}, "real weights of no dtype"),
        ({first: np.arange(3)}, "real weights of no dtype"),
        (weights | {first: weights[first].astype(np.float16)}, "real weights of float16, float32"),
        ({first: weights[first]}, f"weights do not fit: missing {second}"),
        (weights | {"\x1b[31m": weights[first]}, r"unexpected \\x1b\[31m"),
        (weights | {str(i): weights[first] for i in range(99)}, "and 89 more"),
        (weights | {first: weights[first][:1]}, f"{first} "),
    ):
        bridge.write(state, path)
        _opens_in_one_line(run, backend, said)
    bridge.write(weights, path)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    _opens_in_one_line(run, backend, "is not a whole safetensors file")
    path.write_bytes(content[:-4] + b"\x01\0\xa0\x7f")
    _opens_in_one_line(run, backend, "NaN or infinity in ")


@BACKENDS
@pytest.mark.parametrize("name", ["spec.json", "run.json", "model.safetensors"])
def test_files_are_plain_and_inside(run, tmp_path, backend, name):
    """A pipe, which would be waited for, a folder, and a link that leads out are one line each."""
    (run / name).rename(tmp_path / name)
    (run / name).symlink_to(tmp_path / name)
    _opens_in_one_line(run, backend, "is no run: a link that leads out of the folder")
    (run / name).unlink()
    os.mkfifo(run / name)
    _opens_in_one_line(run, backend, "is no run: no plain file")
    (run / name).unlink()
    (run / name).mkdir()
    _opens_in_one_line(run, backend, "is no run: a folder")


@st.composite
def folders(draw, valid):
    """The three files of a run's folder, one of them spoilt."""
    spoilt = dict(valid)
    name = draw(st.sampled_from([*valid, "spec.json"]))
    if name == "model.safetensors":
        spoilt[name] = draw(contents())
    else:
        spoilt[name] = draw(fuzz.mutated(json.loads(valid[name]))).encode()
    return spoilt


@BACKENDS
def test_any_folder(run, tmp_path, backend, weights, attack, capfd):
    """A folder opens as the network that its files tell of, or is one line."""
    valid = {path.name: path.read_bytes() for path in run.iterdir()}

    def check(files):
        for name, content in files.items():
            (run / name).write_bytes(content)
        model = None
        with fuzz.untouched(tmp_path), fuzz.memory_below(64 << 20), fuzz.one_line(ValueError):
            model = flaxnets.load(run, backend)
        if model is not None:
            ours = model.state_dict() if backend == "torch" else bridge.state_dict(model)
            for name, value in bridge.read(run / "model.safetensors").items():
                np.testing.assert_array_equal(torch.as_tensor(ours[name]).numpy(), value)

    attack("run folders opened by load", folders(valid), check, 25)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", flaxnets.names())
def test_nothing_is_drawn(tmp_path, monkeypatch, name):
    """Weights that are there are not drawn before, and none is left without numbers."""
    spec = specs.make(name, "tiny")
    weights = bridge.state_dict(flaxnets.build(spec))
    (tmp_path / "spec.json").write_text(spec.to_json())
    (tmp_path / "run.json").write_text('{"finished": true}')
    bridge.write(weights, tmp_path / "model.safetensors")
    monkeypatch.setattr(init, "np", None)  # by which drawn numbers become arrays
    model = flaxnets.load(tmp_path)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(nnx.state(model)))
    for key, value in bridge.state_dict(model).items():
        np.testing.assert_array_equal(value, weights[key])
    with pytest.raises(AttributeError, match="asarray"):
        flaxnets.build(spec)
