"""Arrays in NumPy's .npz archives; nothing in them is ever unpickled.

Axes: n examples, f features, h w pixels, c channels, o outputs.
"""

import io
import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from flaxnets.data.dataset import LIMIT, DataError, Dataset, Memory, fifth
from flaxnets.data.files import fill
from flaxnets.edge.files import opened
from flaxnets.edge.message import printable, some

WHOLE = ("inputs", "targets")
PARTS = ("train_inputs", "train_targets", "test_inputs", "test_targets")
FLOATS = 8  # bytes of memory for an element beside itself: a float32, and one of its split
LENGTHS = {(1, 0): 2, (2, 0): 4, (3, 0): 4}  # bytes of a header's length, by version
LONGEST = 10_000  # bytes of a header, as for NumPy
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those of NumPy; others unpack all at once


def read(files: list[Path], name: str, limit: int = LIMIT) -> Dataset:
    """The arrays `inputs` and `targets`, or both of them as train_ and test_, of one archive.

    Inputs are rows (n, f) or images (n, h, w) or (n, h, w, c); those of unsigned bytes are
    divided by 255. Targets are labels (n,) of integers from 0, or real numbers (n,) or (n, o).
    Without a test part a fifth is held out, of every class where there are classes.

    Args:
        files: a single one.
        name: of the data set.
        limit: bytes of memory that it may take.

    Raises:
        DataError: several files, a broken or too large one, or arrays that are none of these.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "mine.npz")
    ...     np.savez(path, inputs=np.eye(10), targets=np.arange(10) % 2)
    ...     found = read([path], "mine")
    >>> found.train_inputs.shape, found.test_targets, found.num_classes
    ((8, 10), array([0, 1], dtype=int32), 2)
    """
    where = printable(files[0])
    if len(files) != 1:
        raise DataError(f"{printable(files[0].parent)} has {len(files)} *.npz files; want one")
    arrays = _load(files[0], Memory(limit))
    fitted = {
        key: (_inputs if key.endswith("inputs") else _targets)(f"{where}: {key}", arrays.pop(key))
        for key in tuple(arrays)
    }
    if set(fitted) == set(WHOLE):
        _check_pair(where, fitted["inputs"], fitted["targets"])
        held_out = fifth(fitted["targets"], files[0])
        train, test = ([fitted[key][rows] for key in WHOLE] for rows in (~held_out, held_out))
    else:
        train, test = [fitted[key] for key in PARTS[:2]], [fitted[key] for key in PARTS[2:]]
        for what, own, others in zip(WHOLE, train, test, strict=True):
            if (own.shape[1:], own.dtype) != (others.shape[1:], others.dtype):
                raise DataError(
                    f"{where}: train_{what} are {own.dtype} {own.shape[1:]} each, "
                    f"test_{what} {others.dtype} {others.shape[1:]}"
                )
        _check_pair(where, *train)
        _check_pair(where, *test)
    labelled = train[1].dtype == np.int32
    classes = int(max(train[1].max(), test[1].max())) + 1 if labelled else None
    return Dataset(name, train[0], train[1], test[0], test[1], num_classes=classes)


def _load(path: Path, memory: Memory) -> dict[str, np.ndarray]:
    """The arrays of an archive, each of which is counted before it is unpacked."""
    where = printable(path)
    try:
        with opened(path) as file:
            if file.read(2) != b"PK":
                raise ValueError("it does not begin as a zip file does")
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                names = [member.filename.removesuffix(".npy") for member in members]
                if sorted(names) not in (sorted(WHOLE), sorted(PARTS)):
                    raise DataError(
                        f"{where} holds {some(sorted(names)) or 'nothing'}; "
                        f"want {' and '.join(WHOLE)}, or {', '.join(PARTS)}"
                    )
                arrays = {}
                for name, member in zip(names, members, strict=True):
                    if member.compress_type not in METHODS:
                        raise ValueError(f"{name} is packed by method {member.compress_type}")
                    with archive.open(member) as content:
                        arrays[name] = _array(f"{where}: {name}", content, memory)
                return arrays
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{where} cannot be read: {printable(error.strerror or error)}") from None
    # A broken archive raises whatever zipfile, zlib and the parser of headers trip over.
    except Exception as error:
        reason = printable(" ".join(str(error).split()) or type(error).__name__)
        raise DataError(f"{where} is no npz archive of plain arrays: {reason}") from None


def _array(where: str, file: IO[bytes], memory: Memory) -> np.ndarray:
    """One array, in the format of https://numpy.org/neps/nep-0001-npy-format.html."""
    version = np.lib.format.read_magic(file)
    length = int.from_bytes(file.read(LENGTHS[version]), "little")
    if length > LONGEST:  # NumPy would read it first
        raise ValueError(f"a header of {length} bytes, more than {LONGEST}")
    header = io.BytesIO(length.to_bytes(2, "little") + file.read(length))
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(header)
    if dtype.kind not in "biuf":
        raise DataError(f"{where} is of {printable(dtype)}, not of numbers")
    size = math.prod(shape)
    memory.take((dtype.itemsize + FLOATS) * size, where)
    array = np.empty(size, dtype)
    if fill(array, file) < array.nbytes or file.read(1):
        raise DataError(f"{where} does not hold the {array.nbytes} bytes of {printable(shape)}")
    return array.reshape(shape, order="F" if by_columns else "C")


def _inputs(where: str, array: np.ndarray) -> np.ndarray:
    if array.ndim not in (2, 3, 4) or not array.size:
        raise DataError(
            f"{where} has the shape {printable(array.shape)}; want (n, f), (n, h, w), (n, h, w, c)"
        )
    numbers = _numbers(where, array)
    if array.dtype == np.uint8:
        numbers = numbers / np.float32(255)
    return numbers[..., None] if array.ndim == 3 else numbers


def _targets(where: str, array: np.ndarray) -> np.ndarray:
    if array.ndim not in (1, 2) or not array.size:
        raise DataError(f"{where} has the shape {printable(array.shape)}; want (n,) or (n, o)")
    if array.dtype.kind not in "biu":
        return _numbers(where, array).reshape(len(array), -1)
    if array.ndim != 1:
        raise DataError(f"{where} are integers {array.shape}; want (n,), or real numbers (n, o)")
    if array.min() < 0 or array.max() >= np.iinfo(np.int32).max:
        raise DataError(f"{where} are {array.min()} to {array.max()}; labels count from 0")
    return array.astype(np.int32)


def _numbers(where: str, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = array.astype(np.float32)
    finite = np.isfinite(numbers)
    if not finite.all():
        place = tuple(map(int, np.unravel_index(finite.argmin(), finite.shape)))
        raise DataError(f"{where} holds {array[place]} at {place}, which is no finite float32")
    return numbers


def _check_pair(where: str, inputs: np.ndarray, targets: np.ndarray) -> None:
    if len(inputs) != len(targets):
        raise DataError(f"{where}: {len(inputs)} inputs, {len(targets)} targets")
