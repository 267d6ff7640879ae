"""Weights in safetensors files with torch's names and layouts, so that torch reads them too.

A file is the length of its header in 8 bytes, little-endian, the header in JSON, and the arrays'
bytes, without a gap (https://github.com/huggingface/safetensors#format).
"""

import math
import os
from collections.abc import Mapping
from typing import Annotated, Any, BinaryIO

import ml_dtypes
import numpy as np
from flax import nnx
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import save as to_bytes

from flaxnets.bridge.convert import BridgeError, load_state_dict, state_dict
from flaxnets.edge.files import RECORD, atomic, opened
from flaxnets.edge.message import printable, some
from flaxnets.edge.structure import StructureError, parse

MOST_AXES = 64  # of NumPy
Count = Annotated[int, Field(ge=0, lt=2**63)]

DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


class UnknownDtypeError(ValueError):
    """A dtype that the bridge does not carry, in a file that may be whole."""


class Place(BaseModel):
    """Where an array is among the bytes behind the header, and what it is."""

    dtype: str
    shape: list[Count]
    data_offsets: tuple[Count, Count]


class Header(BaseModel):
    """The arrays of a file by name, and words about it."""

    __pydantic_extra__: dict[str, Place] = Field(init=False)
    model_config = ConfigDict(extra="allow")
    about: dict[str, str] | None = Field(None, alias="__metadata__")


def save(model: nnx.Module, path: str | os.PathLike) -> None:
    """Write a model's weights to a safetensors file.

    Raises:
        BridgeError: a weight that is not finite.
        OSError: the file cannot be written; one that was there before is still there.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "linear.safetensors"
    >>> save(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), path)
    >>> read(path)["weight"].shape
    (3, 2)
    """
    write(state_dict(model), path)


def load(model: nnx.Module, path: str | os.PathLike) -> None:
    """Put the weights of a safetensors file into a model, in place.

    Raises:
        BridgeError: a broken file, or weights that do not fit; the model is then as it was.
        OSError: the file cannot be read.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "linear.safetensors"
    >>> write({"weight": np.eye(2, dtype=np.float32), "bias": np.ones(2, np.float32)}, path)
    >>> model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    >>> load(model, path)
    >>> model(np.zeros(2)).tolist()
    [1.0, 1.0]
    """
    state = read(path)
    try:
        load_state_dict(model, state)
    except BridgeError as error:
        raise BridgeError(f"{path}: {error}", error.findings) from None


def write(state: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Write arrays by name to a safetensors file; see `save`.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "w.safetensors"
    >>> write({"a": np.ones(2)}, path)
    >>> path.read_bytes()[8:].startswith(b'{"')
    True
    """
    arrays = {name: np.asarray(array, order="C") for name, array in state.items()}
    _require_finite(arrays, path)
    with atomic(path) as file:
        file.write(to_bytes(arrays, metadata={"format": "pt"}))


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name; see `load`.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "w.safetensors"
    >>> write({"a": np.ones(2)}, path)
    >>> read(path)["a"].tolist()
    [1.0, 1.0]
    """
    with opened(path) as file:
        try:
            state = _arrays(file)
        except BridgeError as error:
            raise BridgeError(f"{path} is not a whole safetensors file: {error}") from None
        except UnknownDtypeError as error:
            raise BridgeError(f"{path}: {error}") from None
    _require_finite(state, path)
    return state


def _arrays(file: BinaryIO) -> dict[str, np.ndarray]:
    """All arrays, which share the memory that they are read into."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    left = size - 8 - length
    if left < 0 or length > RECORD:
        raise BridgeError(f"a header of {length} bytes, but {size} in all")
    try:
        header: Any = parse(Header, file.read(length), "header")
    except StructureError as error:
        raise BridgeError(str(error)) from None
    places = header.__pydantic_extra__
    end = 0
    for name, place in sorted(places.items(), key=lambda one: one[1].data_offsets):
        begin, end_ = place.data_offsets
        if begin != end or end_ < begin:
            raise BridgeError(f"{printable(name)} begins at byte {begin}, not at {end}")
        end = end_
    if end != left:
        raise BridgeError(f"arrays of {end} bytes, but {left} behind the header")
    content = np.fromfile(file, np.uint8, left)
    return {name: _array(content, name, place) for name, place in places.items()}


def _array(content: np.ndarray, name: str, place: Place) -> np.ndarray:
    if place.dtype not in DTYPES:
        raise UnknownDtypeError(
            f"{printable(name)} has dtype {printable(place.dtype)}; use one of {', '.join(DTYPES)}"
        )
    dtype, (begin, end) = np.dtype(DTYPES[place.dtype]), place.data_offsets
    most = math.prod(axis or 1 for axis in place.shape) * dtype.itemsize
    if len(place.shape) > MOST_AXES or most >= 2**63:
        said = f"{len(place.shape)} axes of {most} bytes in all"
        raise BridgeError(f"{printable(name)} has {said}, more than an array can have")
    if math.prod(place.shape) * dtype.itemsize != end - begin:
        said = f"{place.dtype} of shape {printable(place.shape)} in {end - begin} bytes"
        raise BridgeError(f"{printable(name)} is {said}")
    flat = np.require(content[begin:end].view(dtype), requirements="A")
    return flat.reshape(place.shape)


def _require_finite(state: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    with np.errstate(invalid="ignore"):  # a signalling NaN
        bad = [
            name
            for name, array in state.items()
            if array.dtype.kind in "fV" and not np.isfinite(array).all()
        ]
    if bad:
        raise BridgeError(f"{path}: NaN or infinity in {some(bad)}; use finite weights")
