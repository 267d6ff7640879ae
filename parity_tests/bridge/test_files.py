"""Weights on disk: torch's own tools read them, broken files change nothing."""

import json
import os
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import flaxnets
from flaxnets import bridge, layers
from flaxnets.bridge.files import DTYPES
from parity_tests import fuzz


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


def _write(path, header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def _entry(dtype, shape, size, begin=0):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + size]}


@pytest.mark.parametrize(
    ("header", "data", "said"),
    [
        ({"a": _entry("F32", [0, 1 << 62], 0)}, 0, "a has 2 axes of"),
        ({"a": _entry("F32", [1] * 65, 4)}, 4, "a has 65 axes"),
        ({"a": _entry("F8_E5M2", [1], 1)}, 1, "a has dtype F8_E5M2; use one of F64"),
        ({"a": _entry("F4", [2], 1)}, 1, "a has dtype F4; use one of F64"),
        ({"a": _entry("C64", [1], 8)}, 8, "a has dtype C64; use one of F64"),
        ({"a": _entry("\x1b[31m", [1], 8)}, 8, r"a has dtype \x1b[31m; use one of F64"),
        ({"\x1b[31m": _entry("F32", [2], 4)}, 4, r"\x1b[31m is F32 of shape [2] in 4 bytes"),
        ({"a": _entry("F32", [1 << 40], 1 << 42)}, 4, "arrays of 4398046511104 bytes, but 4"),
        (
            {"a": _entry("F32", [1], 4), "b": _entry("F32", [1], 4)},
            4,
            "b begins at byte 0, not at 4",
        ),
        ({"a": _entry("F32", [1], 4)}, 8, "arrays of 4 bytes, but 8 behind the header"),
        ({"a": _entry("F32", [1], 4, begin=1)}, 5, "a begins at byte 1, not at 0"),
        ({"a": {"dtype": "F32", "shape": [1]}}, 4, "a.data_offsets is missing"),
        ({"a": 3}, 0, "header: a "),
        ([], 0, "header: "),
        (b"[" * 100_000, 0, "header: not JSON"),
        (b"\xff", 0, "header: not JSON"),
    ],
)
def test_header_is_validated(tmp_path, header, data, said):
    """Types, places, shapes and dtypes that are not right are one line, and take no memory."""
    _write(tmp_path / "a.safetensors", header, bytes(data))
    with fuzz.memory_below(32 << 20), pytest.raises(bridge.BridgeError) as caught:
        bridge.read(tmp_path / "a.safetensors")
    assert said in str(caught.value)
    fuzz.require_line(str(caught.value))


@pytest.mark.parametrize("bits", [0x7FA00001, 0xFFC00000, 0x7F800000])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_signalling_nan(tmp_path, bits, dtype):
    """No bits of what is not a number make NumPy warn."""
    data = struct.pack("<I", bits)[-4 if dtype == "F32" else -2 :]
    _write(tmp_path / "a.safetensors", {"a\x07": _entry(dtype, [1], len(data))}, data)
    with pytest.raises(bridge.BridgeError, match=r"NaN or infinity in a\\x07; use"):
        bridge.read(tmp_path / "a.safetensors")


def test_no_plain_file(tmp_path):
    """A pipe, which would be waited for, and a folder are errors of the system."""
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path in (tmp_path / "pipe.safetensors", tmp_path):
        with pytest.raises(OSError, match=r"no plain file|a folder"):
            bridge.read(path)


def test_a_file_is_held_once(tmp_path):
    """Reading takes the memory of the arrays and no more."""
    bridge.write({"a": np.ones(16 << 20, np.float32)}, tmp_path / "a.safetensors")
    with fuzz.memory_below(100 << 20):  # the arrays, and what says which of them are finite
        assert bridge.read(tmp_path / "a.safetensors")["a"].nbytes == 64 << 20


def test_places_need_not_be_aligned(tmp_path):
    """An array that begins at an odd byte comes as an aligned one."""
    header = {"a": _entry("U8", [1], 1), "b": _entry("F64", [2], 16, begin=1)}
    _write(tmp_path / "a.safetensors", header, b"\1" + np.arange(2.0).tobytes())
    state = bridge.read(tmp_path / "a.safetensors")
    assert state["b"].flags.aligned
    np.testing.assert_array_equal(state["b"], [0.0, 1.0])


VALID = {
    "__metadata__": {"format": "pt"},
    "weight": _entry("F32", [3, 2], 24),
    "bias": _entry("F32", [3], 12, begin=24),
    "a\x1b[31m": _entry("I64", [], 8, begin=36),
    "": _entry("BOOL", [0, 5], 0, begin=44),
}
CODES = [*DTYPES, "F8_E4M3", "F8_E5M2", "F8_E8M0", "F6_E2M3", "F4", "C64", "f32", "", "\x1b[2J"]


@st.composite
def contents(draw):
    """A file of a spoilt header, of consistent and of other places, cut, or with bytes changed."""
    data = np.arange(11, dtype=np.float32).tobytes()
    if draw(st.booleans()):
        header = draw(fuzz.mutated(VALID))
    else:
        header, begin = {}, 0
        for name in draw(st.lists(st.sampled_from(["weight", "bias", "\x1b[2J", "é", "n" * 999]))):
            shape = draw(st.lists(st.sampled_from([0, 1, 2, 3, 1 << 31, 1 << 62]), max_size=3))
            size = draw(st.sampled_from([int(np.prod(shape, dtype=object)) * 4, 4, 8, 24, 12, 0]))
            header[name] = _entry(draw(st.sampled_from(CODES)), shape, size, begin)
            begin += size + draw(st.sampled_from([0, 0, 0, 0, -4, 4]))
        header = json.dumps(header)
        data = data * 9 if begin > len(data) * 9 else (data * 9)[: max(begin, 0)]
    if draw(st.sampled_from([False, False, False, True])):
        header = header.replace('"bias"', '"weight"')  # a name twice
    header = header.encode("utf-8", "surrogatepass") + b" " * draw(st.integers(0, 9))
    length = len(header) + draw(st.sampled_from([0] * 9 + [-1, 1, 8, 1 << 40, -len(header)]))
    content = bytearray(struct.pack("<Q", length) + header + data)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2, 9]))):
        at = draw(st.integers(0, len(content) - 1))
        content[at] = draw(st.sampled_from([0, 1, 0x22, 0x7D, 0x7F, 0xFF]))
    return bytes(content[: draw(st.sampled_from([None] * 9 + [-1, 8, 4, 0]))])


def test_any_file(tmp_path, attack, capfd):
    """A file is read as safetensors reads it, or is one line; the model changes only as a whole."""
    model, path = layers.Linear(2, 3, rngs=nnx.Rngs(0)), tmp_path / "a.safetensors"

    def check(content):
        path.write_bytes(content)
        state = None
        with (
            fuzz.untouched(tmp_path),
            fuzz.memory_below(32 << 20),
            fuzz.one_line(bridge.BridgeError),
        ):
            state = bridge.read(path)
        if state is None:
            return
        try:
            theirs = dict(safetensors.deserialize(content))
        except safetensors.SafetensorError as error:
            # Ours takes NaN and names that are twice there, in what nobody reads.
            if "invalid JSON in header" in str(error):
                return
            raise
        assert state.keys() == theirs.keys()
        for name, entry in theirs.items():
            assert state[name].dtype == DTYPES[entry["dtype"]]
            assert (list(state[name].shape), state[name].tobytes()) == (
                entry["shape"],
                entry["data"],
            )
        before = bridge.state_dict(model)
        with fuzz.one_line(bridge.BridgeError):
            try:
                bridge.load(model, path)
            except bridge.BridgeError:
                state = before
                raise
            finally:
                for name, value in bridge.state_dict(model).items():
                    np.testing.assert_array_equal(value, state[name])

    attack("safetensors files", contents(), check, 200)
    assert capfd.readouterr() == ("", "")
