"""The IDX files in which MNIST, Fashion-MNIST and their kin are published.

Format: http://yann.lecun.com/exdb/mnist: two zero bytes, the element type, the number of
axes, every length as a big-endian 32-bit integer, the elements.
"""

import contextlib
import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from flaxnets.data.dataset import LIMIT, DataError, Dataset, Memory
from flaxnets.data.files import fill
from flaxnets.edge.files import opened
from flaxnets.edge.message import printable

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
UNSIGNED_BYTE = 8
FLOATS = 5  # bytes of memory for a byte of a file: itself, and a float32 or an int32


def fashion_mnist() -> Dataset:
    """60,000 + 10,000 images 28x28 of clothes (Xiao et al. 2017, arXiv 1708.07747)."""
    if not FASHION_MNIST.is_dir():
        raise DataError(
            f"fashion-mnist is not at {FASHION_MNIST}; apt-get install dataset-fashion-mnist, "
            "or give --data-dir"
        )
    return read_folder("fashion-mnist", FASHION_MNIST)


def read_folder(name: str, folder: Path, limit: int = LIMIT) -> Dataset:
    """The four files train-images, train-labels, t10k-images and t10k-labels of a folder.

    Args:
        name: of the data set.
        folder: of the files, gzipped or not.
        limit: bytes of memory that it may take.

    Raises:
        DataError: a file that is missing or broken, or images and labels that do not match.
    """
    parts = {}
    memory = Memory(limit)
    for part in ("train", "t10k"):
        images = read(_find(folder, f"{part}-images"), memory)
        labels = read(_find(folder, f"{part}-labels"), memory)
        if images.ndim != 3 or labels.shape != images.shape[:1] or not len(labels):
            raise DataError(
                f"{printable(folder)}: {part} has images {images.shape} and labels {labels.shape}; "
                "want (n, h, w) and (n,), n at least 1"
            )
        parts[part] = (images / np.float32(255))[..., None], labels.astype(np.int32)
    if parts["train"][0].shape[1:] != parts["t10k"][0].shape[1:]:
        raise DataError(f"{printable(folder)}: train and t10k images differ in size")
    classes = max(int(labels.max()) for _, labels in parts.values()) + 1
    return Dataset(name, *parts["train"], *parts["t10k"], num_classes=classes)


def read(path: Path, memory: Memory | None = None) -> np.ndarray:
    """The array of one IDX file of unsigned bytes, gzipped or not.

    Args:
        path: of the file.
        memory: that the data set may take; the usual limit if None.

    Raises:
        DataError: another element type, a file that is not as long as it says, or too large.
    """
    where, memory = printable(path), memory or Memory()
    try:
        with _content(path) as file:
            start = file.read(4)
            if len(start) < 4 or start[:3] != bytes([0, 0, UNSIGNED_BYTE]):
                raise DataError(f"{where} is no IDX file of unsigned bytes (it begins {start!r})")
            lengths = file.read(4 * start[3])
            if len(lengths) < 4 * start[3]:
                raise DataError(f"{where} ends inside its header")
            shape = struct.unpack(f">{start[3]}I", lengths)
            size = math.prod(shape)
            memory.take(FLOATS * size, path)
            try:
                array = np.empty(shape, np.uint8)
            except ValueError as error:  # more axes than there can be, or too long beside one of 0
                raise DataError(f"{where} is no array that NumPy knows: {error}") from None
            held = fill(array, file)
            if held < size:
                raise DataError(f"{where} holds {held} bytes, not {size} for {printable(shape)}")
            if file.read(1):
                raise DataError(f"{where} holds more than the {size} bytes of {printable(shape)}")
            return array
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{where} cannot be read: {printable(reason)}") from None


@contextlib.contextmanager
def _content(path: Path) -> Iterator[BinaryIO]:
    """What is in a plain file, or in the gzip in it."""
    with opened(path) as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            yield file
            return
        with gzip.open(file) as inner:
            yield cast(BinaryIO, inner)


def _find(folder: Path, stem: str) -> Path:
    found = sorted(folder.glob(f"{stem}*ubyte*"))
    if not found:
        raise DataError(f"{printable(folder)} holds no {stem}-idx*-ubyte or {stem}-idx*-ubyte.gz")
    return found[0]
