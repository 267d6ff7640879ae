"""`.pt` files: what torch reads of them is read, without calling anything or trusting a number."""

import contextlib
import copyreg
import io
import itertools
import pickle
import pickletools
import struct
import warnings
import zipfile

import numpy as np
import pytest
import torch
from flax import nnx
from hypothesis import strategies as st

from flaxnets import bridge, layers
from parity_tests import fuzz
from parity_tests.tensors import CARRIED, LEFT, dense, make, states
from torch_ref import arrays
from torch_ref.arrays import CheckpointError

MEMORY = 32 << 20  # bytes, for files of a few kilobytes


def _saved(content, new=True):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=new)
    return file.getvalue()


def _equal(ours, theirs):
    ours, theirs = (x.detach().resolve_conj().resolve_neg() for x in (ours, theirs))
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    bits = [x.contiguous().view(-1).view(torch.uint8) if x.numel() else x for x in (ours, theirs)]
    assert torch.equal(*bits)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "in a row"])
@pytest.mark.parametrize("kind", CARRIED)
def test_carried(tmp_path, kind, new):
    """Every dense tensor is read as what was saved, conjugate and negative views resolved."""
    tensor = make(kind)
    (tmp_path / "a.pt").write_bytes(_saved({"state_dict": {"a": tensor, "b": tensor}}, new))
    state = arrays.read(tmp_path / "a.pt")
    assert list(state) == ["a", "b"]
    _equal(state["a"], tensor)
    same = np.testing.assert_array_equal
    same(*(bridge.convert.as_numpy(x).astype(complex) for x in (state["a"], tensor)))
    if tensor.numel() and not tensor.is_conj() and not tensor.is_neg():
        assert state["a"].data_ptr() == state["b"].data_ptr()


@pytest.mark.parametrize("new", [True, False], ids=["zip", "in a row"])
@pytest.mark.parametrize("kind", LEFT)
def test_left(tmp_path, kind, new):
    """A tensor that is not dense, or of a dtype that NumPy lacks, is named with its key."""
    (tmp_path / "a.pt").write_bytes(_saved({"b": dense(), "a": make(kind)}, new))
    with pytest.raises(
        CheckpointError, match=rf"a is .*{kind.split()[0]}.*; save a state"
    ) as error:
        arrays.read(tmp_path / "a.pt")
    fuzz.require_line(str(error.value))


def test_model_agrees_with_torch(tmp_path):
    """A model's file gives the tensors that torch.load gives, in both formats."""
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    for new in (True, False):
        (tmp_path / "a.pt").write_bytes(_saved(model.state_dict(), new))
        state = arrays.read(tmp_path / "a.pt")
        theirs = torch.load(tmp_path / "a.pt", weights_only=True)
        assert list(state) == list(theirs)
        for name, value in theirs.items():
            _equal(state[name], value)


class _Calls:
    """What a pickle calls when it is opened."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _zip(records, compress=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compress) as archive:
        for name, content in {"version": b"3\n", **records}.items():  # without which torch stops
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def _of_pickle(body):
    return _zip({"data.pkl": b"\x80\x02" + body + b".", "data/0": b"\0" * 4})


def _view(offset, shape, strides, numel=1):
    """The pickle of a state_dict of one tensor of float32."""
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu"
    storage += pickle.dumps(numel, 2)[2:-1] + b"tQ"
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage
    parts = [pickle.dumps(part, 2)[2:-1] for part in (offset, shape, strides)]
    return _of_pickle(b"}X\x01\0\0\0w" + rebuild + b"".join(parts) + b"\x89NtRs")


BOMBS = {
    "compressed": lambda: _zip({"data.pkl": bytes(1 << 26)}, zipfile.ZIP_DEFLATED),
    "storage of 2^60": lambda: _view(0, (1,), (1,), 1 << 60),
    "storage of -1": lambda: _view(0, (1,), (1,), -1),
    "tensor beyond its storage": lambda: _view(0, (1 << 28,), (1,)),
    "tensor behind its storage": lambda: _view(1 << 28, (1,), (1,)),
    "overflow": lambda: _view(0, (1 << 62, 4), (0, 0)),
    "zero beside huge": lambda: _view(0, (0, 1 << 62), (1, 1)),
    "negative stride": lambda: _view(0, (1,), (-1,)),
    "65 axes": lambda: _view(0, (1,) * 65, (1,) * 65),
    "memo": lambda: _of_pickle(b"]r\xff\xff\xff\xff"),
    "long text": lambda: _of_pickle(b"X\xff\xff\xff\xff"),
    "call of bytearray": lambda: _of_pickle(b"cbuiltins\nbytearray\n\x8a\x05\0\0\0\0\x01\x85R"),
    "call of a tensor": lambda: _of_pickle(b"ctorch\nFloatTensor\n\x8a\x05\0\0\0\0\x01\x85R"),
    "call of a storage": lambda: _of_pickle(
        b"ctorch.storage\nUntypedStorage\n\x8a\x05\0\0\0\0\x01\x85R"
    ),
    "deep": lambda: _of_pickle(b"]" * 50_000 + b"a" * 49_999),
    "deep tuples": lambda: _of_pickle(b")" + b"\x85" * 50_000),
    # Its hash takes 2^60 steps.
    "key of keys": lambda: _of_pickle(b"})" + b"q\0h\0\x86" * 60 + b"Ns"),
    "tensors in tensors": lambda: _of_pickle(
        b")" + b"q\0ctorch._tensor\n_rebuild_from_type_v2\nq\1h\1ctorch\nTensor\nh\0}(" * 9
    ),
    "many dicts": lambda: _of_pickle(b"}" * (2 << 20)),
    "in a row": lambda: _saved({"w": dense()}, new=False).replace(
        struct.pack("<q", 6), struct.pack("<q", 1 << 60)
    ),
    "in a row, of no storage": lambda: b"".join(_without_keys(_saved({"w": dense()}, new=False))),
    "tar": lambda: b"storages".ljust(257, b"\0") + b"ustar".ljust(2000, b"\0"),
    "code": lambda: _saved({"w": _Calls(exec, "1/0")}),
    "code's terminal": lambda: _of_pickle(b"c\x1b[31m\n\x07\n"),
    "subclass": lambda: _saved({"w": dense().as_subclass(_Subclass)}),
    "twice": lambda: _twice(),
    "script": lambda: _zip({"data.pkl": b"\x80\x02}.", "constants.pkl": b""}),
    "big-endian": lambda: _zip({"data.pkl": b"\x80\x02}.", "byteorder": b"big"}),
    "no pickle": lambda: _zip({"data/0": b""}),
    "empty": lambda: b"",
    "protocol 4": lambda: _zip({"data.pkl": pickle.dumps({}, 4)}),
    "number": lambda: _saved(3),
    "names": lambda: _saved({1: dense(), b"\x1b": dense()}),
}


class _Subclass(torch.Tensor):
    pass


copyreg.pickle(_Calls, _Calls.__reduce__)


def _pickles_in(saved):
    """The five pickles of a file that is no zip, and what follows them."""
    stream = io.BytesIO(saved)
    ends = [0]
    for _ in range(5):
        list(pickletools.genops(stream))
        ends.append(stream.tell())
    return [saved[a:b] for a, b in itertools.pairwise([*ends, len(saved)])]


def _without_keys(saved):
    parts = _pickles_in(saved)
    return [*parts[:4], pickle.dumps([], 2)]


def _twice():
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(file, "w") as archive:
        for _ in range(2):
            archive.writestr("archive/data.pkl", b"\x80\x02}.")
    return file.getvalue()


@pytest.mark.parametrize("kind", BOMBS)
def test_bomb(tmp_path, kind):
    """A file that says more than it has, or that would run code, is one line and no memory."""
    (tmp_path / "a.pt").write_bytes(BOMBS[kind]())
    most = 200 << 20 if kind == "many dicts" else MEMORY
    with (
        fuzz.memory_below(most),
        pytest.raises(CheckpointError, match=r"a\.pt is not a safe") as error,
    ):
        arrays.read(tmp_path / "a.pt")
    fuzz.require_line(str(error.value))


def test_backslash(tmp_path):
    """Names with escapes that Python warns of are no names of tensors."""
    file = tmp_path / "a.pt"
    file.write_bytes(_saved({"a": dense()}, new=False).replace(b"ctorch._utils", b"ctorch.\\_util"))
    with pytest.raises(CheckpointError):
        arrays.read(file)


def test_no_file(tmp_path):
    """A pipe, a folder and a file that is not there are errors of the system."""
    with pytest.raises(OSError, match="a folder"):
        arrays.read(tmp_path)
    with pytest.raises(FileNotFoundError):
        arrays.read(tmp_path / "absent.pt")


SPARE = [  # of opcodes, whole
    *(b"N", b"}", b"]", b")", b"(", b"\x89", b"0", b"2", b".", b"s", b"u", b"a", b"e", b"t", b"l"),
    *(b"R", b"b", b"\x81", b"Q", b"q\0", b"h\0", b"h\xff", b"r\xff\xff\xff\xff", b"\x85", b"\x87"),
    *(
        b"K\0",
        b"K\xff",
        b"J\xff\xff\xff\xff",
        b"J\xff\xff\xff\x7f",
        b"\x8a\x09" + b"\xff" * 8 + b"\0",
    ),
    *(b"G\x7f\xf8\0\0\0\0\0\0", b"X\x01\0\0\0w", b"X\xff\xff\xff\xff", b"U\x03\xff\xff\xff"),
    *(
        b"\x8a\xff" + b"\x7f" * 255,
        b"I1\n",
        b"L" + b"9" * 5000 + b"L\n",
        b"\x80\x05",
        b"\x93",
        b"\x94",
    ),
    *(b"cbuiltins\neval\n", b"cbuiltins\nbytearray\n", b"ctorch\nTensor\n", b"ctorch\nfloat32\n"),
    *(b"ctorch\nLongStorage\n", b"ctorch\nQInt8Storage\n", b"ctorch.storage\nUntypedStorage\n"),
    *(b"ctorch\nSize\n", b"ccollections\nOrderedDict\n", b"ctorch.hub\nload\n"),
    *(b"ctorch._utils\n_rebuild_tensor_v3\n", b"ctorch._utils\n_rebuild_parameter\n"),
]


@st.composite
def _pickles(draw, content):
    """A pickle with a few of its opcodes removed, repeated, replaced, moved or given others."""
    places = [place for _, _, place in pickletools.genops(content)] + [len(content)]
    parts = [content[a:b] for a, b in itertools.pairwise(places)]
    for _ in range(draw(st.integers(1, 3))):
        at, other = (draw(st.integers(0, len(parts) - 1)) for _ in range(2))
        match draw(st.sampled_from(["remove", "repeat", "replace", "move", "add", "number"])):
            case "remove":
                parts[at : at + draw(st.integers(1, 4))] = []
            case "repeat":
                parts[at:at] = parts[at : at + draw(st.integers(1, 8))]
            case "replace":
                parts[at] = draw(st.sampled_from(SPARE))
            case "move":
                parts[at], parts[other] = parts[other], parts[at]
            case "add":
                parts.insert(at, draw(st.sampled_from(SPARE)))
            case "number":
                whole = [i for i, part in enumerate(parts) if part[:1] in b"KMJ"] or [at]
                number = draw(st.sampled_from([0, 1, 2, 3, 5, 7, -1, 1 << 31, 1 << 62, 1 << 70]))
                parts[draw(st.sampled_from(whole))] = pickle.dumps(number, 2)[2:-1]
        parts = parts or [b"."]
    return b"".join(parts)


@st.composite
def _bytes(draw, content):
    """Content with a few bytes changed, or cut, or repeated."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["change", "change", "change", "cut", "repeat"]))
        if kind == "change":
            content[at : at + 1] = bytes([draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0x2E]))])
        elif kind == "cut":
            del content[at : at + draw(st.integers(1, 64))]
        else:
            content[at:at] = content[at : at + draw(st.integers(1, 64))]
    return bytes(content)


@st.composite
def _archives(draw, content):
    """A zip file with a record gone, renamed, repeated, compressed, resized or of other opcodes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = [
            [info.filename, archive.read(info), zipfile.ZIP_STORED] for info in archive.infolist()
        ]
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(records) - 1))
        record = records[at]
        kinds = ["pickle", "pickle", "remove", "rename", "repeat", "compress", "resize", "swap"]
        match draw(st.sampled_from(kinds)):
            case "pickle":
                own = next((one for one in records if one[0].endswith("data.pkl")), record)
                with contextlib.suppress(ValueError):  # where the second change meets the first
                    own[1] = draw(_pickles(own[1]))
            case "remove" if len(records) > 1:
                del records[at]
            case "rename":
                names = ["archive/data.pkl", "archive/data/0", "x/data.pkl", "../../x", " ", "/"]
                names += ["archive/constants.pkl", "archive/byteorder", "data.pkl", "a/\x1b[31m"]
                record[0] = draw(st.sampled_from(names))
            case "repeat":
                records.append([*record])
            case "compress":
                record[2] = draw(st.sampled_from([zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]))
            case "resize":
                size = draw(
                    st.sampled_from([0, 1, len(record[1]) - 1, len(record[1]) + 1, 1 << 16])
                )
                record[1] = record[1][: max(size, 0)].ljust(max(size, 0), b"\0")
            case "swap":
                other = draw(st.integers(0, len(records) - 1))
                records[at][1], records[other][1] = records[other][1], records[at][1]
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(file, "w") as archive:
        for name, data, compression in records:
            archive.writestr(name, data, compression)
    return file.getvalue()


@st.composite
def files(draw):
    """What torch.save writes of anything, as it is, or spoilt."""
    content, new = (
        draw(st.one_of(states, states.map(lambda x: {"state_dict": x}))),
        draw(st.booleans()),
    )
    with warnings.catch_warnings(action="ignore"):
        saved = _saved(content, new)
    kind = draw(st.sampled_from(["as it is", "structure", "structure", "structure", "bytes"]))
    if kind == "bytes":
        return draw(_bytes(saved))
    if kind == "structure" and new:
        return draw(_archives(saved))
    if kind == "structure":
        parts = _pickles_in(saved)
        at = draw(st.sampled_from([3, 3, 3, 4, 4, 0, 1, 2]))
        parts[at] = draw(_pickles(parts[at]))
        return b"".join(parts)
    return saved


def test_any_file(tmp_path, attack, capfd):
    """Whatever torch.save writes, spoilt in any way, is read as torch reads it, or is one line."""
    model = layers.Linear(2, 3, rngs=nnx.Rngs(0))
    path = tmp_path / "a.pt"

    def check(content):
        path.write_bytes(content)
        state = None
        with fuzz.untouched(tmp_path), fuzz.memory_below(MEMORY), fuzz.one_line(CheckpointError):
            state = arrays.read(path)
        if state is None:
            return
        theirs = None
        # Where torch fails, it fails in any of many ways; what ours took is small and inside.
        with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
            theirs = torch.load(path, weights_only=True)
        if theirs is not None:
            theirs = theirs["state_dict"] if list(theirs) == ["state_dict"] else theirs
            assert list(state) == list(theirs)
            for name, value in theirs.items():
                _equal(state[name], value)
        before = bridge.state_dict(model)
        with fuzz.one_line(bridge.BridgeError):
            try:
                bridge.load_state_dict(model, state)
            except bridge.BridgeError:
                for name, value in bridge.state_dict(model).items():
                    np.testing.assert_array_equal(value, before[name])
                raise

    attack(".pt files", files(), check, 150)
    assert capfd.readouterr() == ("", "")
