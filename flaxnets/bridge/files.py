"""Weights in safetensors files with torch's names and layouts, so that torch reads them too."""

import os
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors
from flax import nnx
from safetensors.numpy import save as to_bytes

from flaxnets.bridge.convert import BridgeError, load_state_dict, state_dict
from flaxnets.edge.files import atomic

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


def save(model: nnx.Module, path: str | os.PathLike) -> None:
    """Write a model's weights to a safetensors file.

    Raises:
        BridgeError: a weight that is not finite.
        OSError: the file cannot be written; one that was there before is still there.

    >>> path = Path(tempfile.mkdtemp()) / "linear.safetensors"
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

    >>> path = Path(tempfile.mkdtemp()) / "linear.safetensors"
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
        raise BridgeError(f"{path}: {error}") from None


def write(state: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Write arrays by name to a safetensors file; see `save`.

    >>> path = Path(tempfile.mkdtemp()) / "w.safetensors"
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

    >>> path = Path(tempfile.mkdtemp()) / "w.safetensors"
    >>> write({"a": np.ones(2)}, path)
    >>> read(path)["a"].tolist()
    [1.0, 1.0]
    """
    content = Path(path).read_bytes()
    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise BridgeError(f"{path} is not a whole safetensors file: {error}") from None
    state = {}
    for name, entry in entries:
        if entry["dtype"] not in DTYPES:
            raise BridgeError(
                f"{path}: {name} has dtype {entry['dtype']}; use one of {', '.join(DTYPES)}"
            )
        flat = np.frombuffer(entry["data"], DTYPES[entry["dtype"]])
        state[name] = flat.reshape(entry["shape"])
    _require_finite(state, path)
    return state


def _require_finite(state: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    bad = []
    for name, array in state.items():
        if array.dtype.kind in "fV" and not np.isfinite(array.astype(np.float64)).all():
            bad.append(name)
    if bad:
        raise BridgeError(f"{path}: NaN or infinity in {', '.join(bad)}; use finite weights")
