"""Files that are read as what they claim to be, and written as a whole or not at all.

A file is complete or absent: it is written beside its place, synced and renamed.
"""

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

RECORD = 1 << 26  # bytes of a file of JSON that describes something


def read(path: str | os.PathLike, most: int | None = None) -> bytes:
    """The content of a plain file; a pipe or a device, which may never end, is refused.

    Args:
        path: of the file; a link is followed.
        most: bytes that it may have.

    Raises:
        OSError: a file that cannot be read, is not a plain one or is larger.

    >>> read(__file__)[:3]
    b'\"\"\"'
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise OSError(
                errno.EFBIG, f"{size} bytes, more than the {most} that it may have", os.fspath(path)
            )
        return file.read()


def opened(path: str | os.PathLike) -> BinaryIO:
    """A plain file, opened to be read; see `read`."""
    # Without O_NONBLOCK a pipe that nobody writes to would be waited for here.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kind = "a folder" if stat.S_ISDIR(mode) else "no plain file"
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, kind, os.fspath(path))
    return os.fdopen(handle, "rb")


def within(folder: str | os.PathLike, *names: str) -> Path:
    """A path in a folder that somebody else may have filled, which no link leads out of.

    Args:
        folder: may be a link itself.
        names: of what is in it and in its subfolders.

    Raises:
        OSError: a link that leads elsewhere.

    >>> within(tempfile.gettempdir(), "a", "b").name
    'b'
    """
    path = Path(folder, *names)
    # Unlike Path.resolve, realpath does not raise for links in a circle.
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise OSError(errno.ELOOP, "a link that leads out of the folder", os.fspath(path))
    return path


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file that takes its place, synced, when the block ends well, and not otherwise."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if (
            isinstance(error, OSError) and error.errno and error.filename is None
        ):  # of a write to a full disk
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        raise
    sync(path.parent)


def sync(folder: str | os.PathLike) -> None:
    """Wait until what a folder lists is on the disk.

    Raises:
        OSError: a folder that cannot be opened, or a disk that cannot be written to.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
