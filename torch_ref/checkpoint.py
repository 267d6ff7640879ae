"""What torch.save writes, read as data: nothing in a file is called, and sizes come first.

`torch.load(weights_only=True)` calls torch's constructors with what the file says, so that a small
file may take any memory, or show what was in it. Here a pickle becomes descriptions, of which
those of plain tensors are checked against the bytes that are there. A file is a zip of a pickle
and its storages, uncompressed, or, until torch 1.5, five pickles and the storages behind them
(`torch/serialization.py`, `torch/_weights_only_unpickler.py`).
"""

import math
import os
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from flaxnets.edge.message import printable

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the format without a zip
OPCODES = 1 << 20  # of one pickle: enough for 25,000 tensors
CHUNK = 1 << 20  # bytes
MOST_AXES = 64  # of NumPy
SIZES = {  # bytes of an element, by torch's name of the dtype
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "complex128": 16,
    "complex64": 8,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
}
QUANTIZED = {"qint32": 4, "qint8": 1, "quint8": 1, "quint4x2": 1, "quint2x4": 1}
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "UntypedStorage": "uint8",
    "QInt32Storage": "qint32",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
}
# Python's own types that stand beside tensors; what they hold is let go.
HARMLESS = {
    *("builtins.set", "builtins.bytearray", "builtins.complex", "_codecs.encode"),
    *("__builtin__.set", "__builtin__.bytearray", "__builtin__.complex", "collections.Counter"),
}
KEYS = (str, int, float, bool, bytes, type(None))  # whose hash takes no time
UNLIKE = {  # what else is a tensor
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_qtensor": "quantized",
    "torch._utils._rebuild_nested_tensor": "nested",
    "torch.nested._internal.nested_tensor._rebuild_njt": "nested",
    "torch._utils._rebuild_meta_tensor_no_storage": "on the device meta, without data",
}


class CheckpointError(ValueError):
    """A file that holds no plain tensors by name, or is broken; the message is one line."""


class Symbol(str):
    """The name of something of Python's, which is never looked up."""


@dataclass(frozen=True)
class Storage:
    """Where elements are: under which key, how many and of which dtype."""

    key: str | int
    numel: int
    dtype: str

    @property
    def nbytes(self) -> int:
        """The bytes that the file has to have of it."""
        return self.numel * (SIZES | QUANTIZED)[self.dtype]


@dataclass(frozen=True)
class Tensor:
    """A view of a storage, in elements; it is inside."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conjugate: bool = False
    negative: bool = False


@dataclass(frozen=True)
class Other:
    """What is no plain tensor."""

    kind: str


Load = Callable[[Storage], bytearray]


def contents(file: BinaryIO) -> tuple[Any, Load]:
    """What a file holds, tensors as their descriptions, and how to get at the storages' bytes.

    Raises:
        CheckpointError: a file that is broken, holds code, or says more than it has.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(512)
    file.seek(0)
    try:
        if start.startswith(b"PK\x03\x04"):
            return _zipped(file, size)
        if start[257:262] == b"ustar":
            raise CheckpointError("a tar file, as torch 0.1 wrote them; save it anew in torch")
        return _in_a_row(file, size)
    except (
        *(zipfile.BadZipFile, NotImplementedError, RuntimeError),  # the zip file's
        *(EOFError, OSError, OverflowError, struct.error),
        *(ValueError, LookupError, TypeError),  # the pickle's; they hold no more than a word
    ) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"broken ({type(error).__name__}: {printable(error)})") from None


def _zipped(file: BinaryIO, size: int) -> tuple[Any, Load]:
    archive = zipfile.ZipFile(file)
    records = archive.infolist()
    folder = records[0].filename.partition("/")[0] if records else ""
    found = {record.filename.removeprefix(f"{folder}/"): record for record in records}
    if len(found) < len(records):
        raise CheckpointError("a record is there twice")
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise CheckpointError("compressed records, which torch does not write")
    if sum(record.file_size for record in records) > size:
        raise CheckpointError("the records say more bytes than the file has")
    if "constants.pkl" in found:
        raise CheckpointError("a TorchScript archive; save model.state_dict()")
    if "data.pkl" not in found:
        raise CheckpointError("a zip file without data.pkl")

    def record(name: str) -> bytearray:
        if name not in found:
            raise CheckpointError(f"record {printable(name)} is missing")
        content = bytearray(found[name].file_size)
        taken = 0
        with archive.open(found[name]) as stream:
            while part := stream.read(CHUNK):
                content[taken : taken + len(part)] = part
                taken += len(part)
        return content

    if "byteorder" in found and record("byteorder") != b"little":
        raise CheckpointError("big-endian numbers; save it on a usual machine")

    def load(storage: Storage) -> bytearray:
        content = record(f"data/{storage.key}")
        if len(content) != storage.nbytes:
            raise CheckpointError(
                f"storage {printable(storage.key)} has {len(content)} bytes, not {storage.nbytes}"
            )
        return content

    pickle = record("data.pkl")
    return _Pickle(pickle).read(), load


def _in_a_row(file: BinaryIO, size: int) -> tuple[Any, Load]:
    stream = _Bounded(file, size)
    if _Pickle(stream).read() != MAGIC or _Pickle(stream).read() != PROTOCOL:
        raise CheckpointError("torch has not written it")
    _Pickle(stream).read()  # of the machine
    machine = _Pickle(stream)
    content = machine.read()
    places = {}
    for key in _Pickle(stream).read():
        storage = machine.storages[key]
        (numel,) = struct.unpack("<q", stream.read(8))
        place = file.tell()
        if numel != storage.numel or storage.nbytes > size - place:
            raise CheckpointError(f"storage {printable(key)} is cut short")
        places[key] = place
        file.seek(storage.nbytes, os.SEEK_CUR)

    def load(storage: Storage) -> bytearray:
        if storage.key not in places:
            raise CheckpointError(f"storage {printable(storage.key)} is missing")
        file.seek(places[storage.key])
        content = bytearray(storage.nbytes)
        if file.readinto(content) != storage.nbytes:  # type: ignore[attr-defined]
            raise CheckpointError(f"storage {printable(storage.key)} is cut short")
        return content

    return content, load


class _Bounded:
    """A file of which nobody asks for more than there is, which takes memory before it is read."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self.readline = file.readline

    def read(self, count: int) -> bytes:
        return self.file.read(min(count, max(self.size - self.file.tell(), 0)))


class _Pickle:
    """A pickle of protocol 2, of the opcodes that torch writes, as lists, dicts, tuples, tensors.

    Nothing is called, a name is a name. A reference to the memo shares, so that memory is
    bounded by the opcodes; nobody walks deeper into what it returns than two levels.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.storages: dict[str | int, Storage] = {}

    def read(self) -> Any:
        """What a pickle of these few opcodes is."""
        with warnings.catch_warnings():  # of a backslash in a text
            warnings.simplefilter("ignore")
            return self._read()

    def _read(self) -> Any:
        stack: list[Any] = []
        below: list[list[Any]] = []
        memo: dict[int, Any] = {}
        argument: Any
        for count, (opcode, argument, _) in enumerate(pickletools.genops(self.stream)):
            if count > OPCODES:
                raise CheckpointError("a pickle too long for a state_dict")
            match opcode.name:
                case "PROTO":
                    if argument != 2:
                        raise CheckpointError(f"pickle protocol {argument}, not 2")
                case "BININT" | "BININT1" | "BININT2" | "BINFLOAT" | "BINUNICODE" | "LONG1":
                    stack.append(argument)
                case "SHORT_BINSTRING":
                    stack.append(argument.encode("latin-1").decode())
                case "NONE" | "NEWFALSE" | "NEWTRUE":
                    stack.append({"NONE": None, "NEWFALSE": False, "NEWTRUE": True}[opcode.name])
                case "EMPTY_LIST":
                    stack.append([])
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_SET":
                    stack.append(Other("a set"))
                case "EMPTY_TUPLE":
                    stack.append(())
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    start = len(stack) - int(opcode.name[-1])
                    stack[start:] = [tuple(stack[start:])]
                case "MARK":
                    below.append(stack)
                    stack = []
                case "TUPLE":
                    items, stack = stack, below.pop()
                    stack.append(tuple(items))
                case "APPEND":
                    item = stack.pop()
                    _checked(stack[-1], list).append(item)
                case "APPENDS":
                    items, stack = stack, below.pop()
                    _checked(stack[-1], list).extend(items)
                case "SETITEM":
                    items = [stack.pop(-2), stack.pop()]
                    _put(stack[-1], [items])
                case "SETITEMS":
                    items, stack = stack, below.pop()
                    _put(stack[-1], zip(items[::2], items[1::2], strict=True))
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "GLOBAL":
                    stack.append(_named(*argument.split(" ")))
                case "REDUCE" | "NEWOBJ":
                    arguments = _checked(stack.pop(), tuple)
                    stack[-1] = _made(_checked(stack[-1], Symbol), arguments)
                case "BUILD":  # attributes of a dict, or of something that is let go
                    stack.pop()
                    _checked(stack[-1], dict, Other)
                case "BINPERSID":
                    stack.append(self._storage(stack.pop()))
                case "STOP":
                    return stack.pop()
                case name:
                    raise CheckpointError(f"opcode {name}, which torch does not write")
        raise CheckpointError("a pickle without an end")

    def _storage(self, told: Any) -> Storage:
        word, kind, key, _, numel, *view = _checked(told, tuple)
        dtype = STORAGES.get(_checked(kind, Symbol).rpartition(".")[2])
        if word != "storage" or dtype is None or any(part is not None for part in view):
            raise CheckpointError("a storage of a kind that is not known")
        key, numel = _checked(key, str, int), _checked(numel, int)
        if not 0 <= numel < 2**63:
            raise CheckpointError(f"a storage of {printable(numel)} elements")
        storage = Storage(key, numel, dtype)
        if self.storages.setdefault(key, storage) != storage:
            raise CheckpointError(f"storage {printable(key)} has two kinds")
        return storage


def _checked(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        wanted = " or ".join(kind.__name__.lower() for kind in kinds)
        raise CheckpointError(f"a {type(value).__name__.lower()} in the place of a {wanted}")
    return value


def _put(target: Any, pairs: Iterable[Any]) -> None:
    if type(target) is not Other:
        for key, value in pairs:
            _checked(target, dict)[_checked(key, *KEYS)] = value


def _named(module: str, name: str) -> Symbol:
    path = f"{module}.{name}"
    if module.partition(".")[0] == "torch" or path in HARMLESS or path == "collections.OrderedDict":
        return Symbol(path)
    raise CheckpointError(f"it holds {printable(path)}; save model.state_dict()")


def _made(name: Symbol, arguments: tuple[Any, ...]) -> Any:
    """What a call would have made."""
    if name == "torch._tensor._rebuild_from_type_v2":
        function, kind, arguments, _ = arguments
        if kind not in ("torch.Tensor", "torch.nn.parameter.Parameter"):
            return Other(UNLIKE.get(function, f"of type {printable(kind)}"))
        if function == name:
            raise CheckpointError("a tensor in a tensor")
        name = _checked(function, Symbol)
    match name, arguments:
        case "collections.OrderedDict", ():
            return {}
        case "collections.OrderedDict", ([*pairs],):  # as Python 2 wrote it
            made: dict[Any, Any] = {}
            _put(made, (_checked(pair, list, tuple) for pair in pairs))
            return made
        case "torch.Size", (tuple() | list() as shape,):
            return tuple(shape)
        case (
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
            (Tensor() | Other() as data, *_),
        ):
            return data
        case "torch._utils._rebuild_tensor", (Storage() as storage, offset, shape, strides):
            return _view(storage, storage.dtype, offset, shape, strides)
        case (
            "torch._utils._rebuild_tensor_v2",
            (Storage() as storage, offset, shape, strides, _, _, *told),
        ):
            return _flagged(_view(storage, storage.dtype, offset, shape, strides), told)
        case (
            "torch._utils._rebuild_tensor_v3",
            (Storage() as storage, offset, shape, strides, _, _, Symbol() as dtype, *told),
        ):
            view = _view(storage, dtype.removeprefix("torch."), offset, shape, strides)
            return _flagged(view, told)
    return Other(UNLIKE.get(name, f"made by {printable(name)}"))


def _view(storage: Storage, dtype: str, offset: Any, shape: Any, strides: Any) -> Tensor | Other:
    if dtype not in SIZES:
        return Other(f"of dtype {printable(dtype)}")
    shape, strides = _checked(shape, tuple), _checked(strides, tuple)
    for number in (offset, *shape, *strides):
        if not 0 <= _checked(number, int) < 2**63:
            raise CheckpointError(f"a tensor with {printable(number)} in its shape")
    if len(shape) != len(strides) or len(shape) > MOST_AXES:
        raise CheckpointError(f"a tensor of {len(shape)} axes and {len(strides)} strides")
    if math.prod(size or 1 for size in shape) * SIZES[dtype] >= 2**63:
        raise CheckpointError(f"a tensor of shape {printable(shape)}")
    steps = zip(shape, strides, strict=True)
    last = offset + sum((size - 1) * stride for size, stride in steps)
    if 0 not in shape and (last + 1) * SIZES[dtype] > storage.nbytes:
        raise CheckpointError(f"a tensor of shape {printable(shape)} leaves its storage")
    if 0 in shape:  # which has no place in its storage
        offset, strides = 0, (1,) * len(shape)
    return Tensor(storage, dtype, offset, shape, strides)


def _flagged(view: Tensor | Other, told: list[Any]) -> Tensor | Other:
    if isinstance(view, Other) or not told or told == [None]:
        return view
    (flags,) = told
    conjugate, negative = (bool(_checked(flags, dict).get(name)) for name in ("conj", "neg"))
    is_complex = view.dtype.startswith("complex")
    if (conjugate and not is_complex) or (
        negative and "float" not in view.dtype and not is_complex
    ):
        raise CheckpointError(f"a conjugate or negative view of {view.dtype}")
    return replace(view, conjugate=conjugate, negative=negative)
