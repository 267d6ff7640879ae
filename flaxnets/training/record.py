"""The record of a checkpoint: what its arrays mean, under a seal, and what may be wrong with it."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from pydantic import Field
from typing_extensions import TypedDict  # which pydantic wants below Python 3.12

from flaxnets.edge import message
from flaxnets.edge.files import RECORD, read
from flaxnets.edge.structure import StructureError, parse, require

FORMAT = 1
DIFFERENCES = 3  # that an error names
STATUS = re.compile(r"([A-Z_]+): ")  # what TensorStore's messages, a page each, begin with
REASONS = [
    os.strerror(code)
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EIO)
]


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or restored; the message is one line."""


class BrokenError(Exception):
    """Why a checkpoint is not whole."""


class Leaf(TypedDict):
    """What a record says of an array."""

    dtype: str
    shape: list[int]
    digest: str


class Record(TypedDict):
    """What a checkpoint says of itself."""

    format: int
    step: Annotated[int, Field(ge=0, lt=2**31)]
    about: dict[str, Any]
    figures: dict[str, float]
    leaves: dict[str, Leaf]


class _Sealed(TypedDict):
    sha256: str
    record: dict[str, Any]


def named(tree: Any) -> dict[str, Any]:
    """The leaves by their path, joined by dots, in the order of the tree.

    Raises:
        ValueError: a leaf that is not an array, or that has no elements; two of one name.

    >>> list(named({"b": np.ones(1), "a": (np.ones(1), np.ones(1))}))
    ['a.0', 'a.1', 'b']
    """
    leaves: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name in leaves:
            raise ValueError(f"two leaves are called {name}; give them different names")
        if not hasattr(leaf, "dtype") or jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):
            kind = getattr(leaf, "dtype", type(leaf).__name__)
            raise ValueError(f"{name} is {kind}; save an array, of a typed key its key_data")
        if 0 in leaf.shape:
            raise ValueError(f"{name} has shape {leaf.shape}; leave out what has no elements")
        leaves[name] = np.asarray(leaf) if isinstance(leaf, np.generic) else leaf
    return leaves


def kind_of(leaf: Any) -> dict[str, Any]:
    """What of an array must be as it was saved, as JSON has it."""
    return {"dtype": np.dtype(leaf.dtype).name, "shape": list(leaf.shape)}


def require_same(path: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Compare the leaves of a record with those that are wanted.

    Raises:
        CheckpointError: a leaf that only one side has, or of another dtype or shape.
    """

    def described(kind):
        return f"{kind['dtype']}{kind['shape']}" if kind else "missing"

    differences = []
    for name in {**wanted, **saved}:
        there = saved.get(name)
        here = kind_of(wanted[name]) if name in wanted else None
        if described(there) != described(here):
            differences.append(f"{name} is {described(there)} there, {described(here)} here")
    if differences:
        raise CheckpointError(
            f"{path} is of another network or optimizer: {some(differences, '; ')}"
        )


def some(things: list[str], separator: str = ", ") -> str:
    """The first few of them.

    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    return message.some(things, separator, DIFFERENCES)


def sealed(record: Mapping[str, Any]) -> bytes:
    """A record as its file holds it; what JSON changes, as tuples, must not be in it."""
    return json.dumps({"sha256": _seal(record), "record": record}, indent=1).encode()


def unsealed(path: Path) -> Record:
    """Read a record from its file.

    Raises:
        BrokenError: it cannot be read, or is not as it was written.
    """
    try:
        content = parse(_Sealed, read(path, RECORD), path.name)
    except OSError as error:
        raise BrokenError(f"{path.name}: {reason_of(error)}") from None
    except StructureError:
        raise BrokenError(f"{path.name} is not a record") from None
    record = content["record"]
    if content["sha256"] != _seal(record):
        raise BrokenError(f"{path.name} is not as it was written")
    if record.get("format") != FORMAT:
        known = message.printable(record.get("format"))
        raise BrokenError(f"format {known}; this version reads {FORMAT}")
    try:
        return require(Record, record, path.name)
    except StructureError as error:
        raise BrokenError(str(error)) from None


def _seal(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def reason_of(error: Exception) -> str:
    """In a few words; the messages of Orbax and TensorStore are pages.

    >>> reason_of(ValueError("RESOURCE_EXHAUSTED: a, b, c: No space left on device [source"))
    'No space left on device'
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    for reason in REASONS:
        if reason in text:
            return reason
    if status := STATUS.match(text):
        return f"TensorStore says {status[1]}"
    return f"{type(error).__name__}: {text.partition(chr(10))[0][:100]}"
