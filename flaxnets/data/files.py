"""What the readers of files share."""

import os
from pathlib import Path
from typing import IO

import numpy as np

from flaxnets.data.dataset import DataError, Memory
from flaxnets.edge.files import opened
from flaxnets.edge.message import printable

CHUNK = 1 << 20  # bytes that are unpacked at a time


def read_text(path: Path, memory: Memory | None = None, times: int = 1) -> str:
    """The text of a UTF-8 file, without a byte-order mark; ends of lines stay as they are.

    Args:
        path: of the file.
        memory: that the data set may take; the usual limit if None.
        times: bytes of memory that a byte of the file will take at most.

    Raises:
        DataError: a file that cannot be read, is too large or is not UTF-8; the line is named.

    >>> read_text(Path(__file__)).split()[1:4]
    ['the', 'readers', 'of']
    """
    try:
        with opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            (memory or Memory()).take(times * size, path)
            content = file.read(size)
    except OSError as error:
        raise DataError(f"{printable(path)} cannot be read: {error.strerror}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{printable(path)}:{number}: byte 0x{content[error.start]:02x} is not UTF-8"
        ) from None


def fill(array: np.ndarray, file: IO[bytes]) -> int:
    """Read the elements of an array, in the order in which they are in memory.

    Args:
        array: to be filled.
        file: that may end before the array does.

    Returns:
        How many bytes there were.

    >>> import io
    >>> array = np.zeros(3, np.uint8)
    >>> fill(array, io.BytesIO(b"ab")), array.tolist()
    (2, [97, 98, 0])
    """
    left = array.reshape(-1).view(np.uint8).data
    while len(left) and (content := file.read(min(len(left), CHUNK))):
        left[: len(content)] = content
        left = left[len(content) :]
    return array.nbytes - len(left)


def train_and_test(files: list[Path]) -> tuple[Path, Path]:
    """The one file with "train" and the one with "test" in its name; others are not read.

    Raises:
        DataError: none or several of either.

    >>> [path.name for path in train_and_test([Path("test.csv"), Path("x.csv"), Path("train.csv")])]
    ['train.csv', 'test.csv']
    """
    found = []
    for part in ("train", "test"):
        named = [path for path in files if part in path.name]
        if len(named) != 1:
            raise DataError(
                f"{printable(files[0].parent)} has {len(named)} *{files[0].suffix} files with "
                f"{part} in their name; want one of train and one of test, or a single file"
            )
        found += named
    return found[0], found[1]
