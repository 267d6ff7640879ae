"""Weights on disk: torch's own tools read them, broken files change nothing."""

import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import flaxnets
from flaxnets import bridge
from flaxnets.bridge.files import DTYPES


@pytest.fixture
def model():
    """A small model."""
    return flaxnets.create("lenet", variant="tiny")


def test_torch_reads_it(model, tmp_path):
    """Safetensors' torch side reads the file straight into the torch twin."""
    bridge.save(model, tmp_path / "m.safetensors")
    twin = flaxnets.create("lenet", "torch", "tiny")
    twin.load_state_dict(safetensors.torch.load_file(tmp_path / "m.safetensors"))
    for name, value in bridge.state_dict(model).items():
        np.testing.assert_array_equal(twin.state_dict()[name].numpy(), value)


def test_reads_what_torch_wrote(model, tmp_path):
    """A file that safetensors' torch side wrote loads into the Flax twin."""
    twin = flaxnets.create("lenet", "torch", "tiny", seed=4)
    safetensors.torch.save_file(twin.state_dict(), tmp_path / "m.safetensors")
    bridge.load(model, tmp_path / "m.safetensors")
    for name, value in bridge.state_dict(model).items():
        np.testing.assert_array_equal(twin.state_dict()[name].numpy(), value)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 3), max_size=3))
def test_every_dtype_and_shape(tmp_path_factory, code, shape):
    """Written and read, an array has the same bits, dtype and shape."""
    path = tmp_path_factory.mktemp("dtypes") / "a.safetensors"
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(DTYPES[code])
    bridge.write({"a": array}, path)
    back = bridge.read(path)["a"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def _truncated(content):
    return content[:-5]


def _huge_header(content):
    return struct.pack("<Q", 2**40) + content[8:]


def _not_json(content):
    return content[:8] + b"x" * (len(content) - 8)


@pytest.mark.parametrize("harm", [_truncated, _huge_header, _not_json, lambda c: b"", bytes.upper])
def test_broken_file(model, tmp_path, harm):
    """A broken file is one clear line, and the model keeps its weights."""
    path = tmp_path / "m.safetensors"
    bridge.save(model, path)
    before = bridge.state_dict(model)
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(bridge.BridgeError, match=r"m\.safetensors") as caught:
        bridge.load(model, path)
    assert "\n" not in str(caught.value)
    for name, value in bridge.state_dict(model).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_not_finite(model, tmp_path, dtype, poison):
    """Weights that are not finite are neither read nor written."""
    state = {name: value.astype(dtype) for name, value in bridge.state_dict(model).items()}
    state["fc1.bias"][0] = poison
    with pytest.raises(bridge.BridgeError, match=r"NaN or infinity in fc1\.bias"):
        bridge.write(state, tmp_path / "a.safetensors")
    tensors = {"fc1.bias": torch.tensor([1.0, float(poison)])}
    safetensors.torch.save_file(tensors, tmp_path / "b.safetensors")
    with pytest.raises(bridge.BridgeError, match=r"NaN or infinity in fc1\.bias"):
        bridge.load(model, tmp_path / "b.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_dtype_unknown_to_numpy(model, tmp_path):
    """A dtype that the bridge does not carry is named."""
    tensors = {"a": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    safetensors.torch.save_file(tensors, tmp_path / "m.safetensors")
    with pytest.raises(bridge.BridgeError, match="a has dtype F8_E4M3; use one of F64"):
        bridge.load(model, tmp_path / "m.safetensors")
