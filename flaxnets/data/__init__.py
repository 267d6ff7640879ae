"""Data sets that come inside packages, each with a fixed split, and readers for files."""

from collections.abc import Callable
from pathlib import Path

from flaxnets.data import (
    arrays,
    dates,
    idx,
    images,
    packaged,
    series,
    surnames,
    tables,
    tagging,
    text,
)
from flaxnets.data.dataset import LIMIT, DataError, Dataset, fit, fit_to
from flaxnets.data.lazy import Lazy
from flaxnets.data.resident import Resident, fits, gather
from flaxnets.data.sampler import batches, order
from flaxnets.edge.message import printable

__all__ = [
    "LIMIT",
    "DataError",
    "Dataset",
    "Lazy",
    "Resident",
    "batches",
    "fit",
    "fit_to",
    "fits",
    "gather",
    "load",
    "names",
    "order",
]

LOADERS: dict[str, Callable[[], Dataset]] = {
    "mnist": packaged.mnist,
    "digits": packaged.digits,
    "fashion-mnist": idx.fashion_mnist,
    "diabetes": packaged.diabetes,
    "binary": packaged.binary,
    "binary-sums": packaged.binary_sums,
    "surnames": surnames.surnames,
    "english-tags": tagging.english_tags,
    "dates": dates.dates,
    "python-docs": text.python_docs,
    "sunspots": series.sunspots,
    "co2": series.co2,
}

READERS: dict[str, Callable[[list[Path], str, int], Dataset]] = {
    ".npz": arrays.read,
    ".csv": tables.read,
    ".conllu": tagging.read,
    ".txt": text.read,
}


def names() -> tuple[str, ...]:
    """The data sets that `load` knows by name.

    >>> "mnist" in names()
    True
    """
    return tuple(LOADERS)


def load(name: str, data_dir: str | Path | None = None, limit: int = LIMIT) -> Dataset:
    """A data set by name, or from files.

    Args:
        name: one of `names()`; any name will do for files.
        data_dir: a folder of IDX files as MNIST and Fashion-MNIST are published in; a folder of
            images with one subfolder a class, or two such folders, train and test; a *.npz file;
            a *.csv or *.conllu file, or a folder with one of train and one of test in its name;
            a *.txt file, or a folder of them; None for the place that the data set is installed
            in. Of a folder with several of these the first kind is read.
        limit: bytes of memory that a data set from files may take; images are read one by one,
            when they are asked for.

    Raises:
        DataError: an unknown name, a missing package or file, or a broken or too large file.

    >>> load("digits").train_inputs.shape[1:]
    (8, 8, 1)
    """
    if data_dir is not None:
        return _read(printable(name), Path(data_dir), limit)
    if name not in LOADERS:
        raise DataError(
            f"data set '{printable(name)}' is unknown; use one of {', '.join(LOADERS)}, "
            "or give data_dir"
        )
    return LOADERS[name]()


def _read(name: str, path: Path, limit: int) -> Dataset:
    """From files of the first kind that is there."""
    where = printable(path)
    try:
        is_folder = path.is_dir()
        found = sorted(path.iterdir()) if is_folder else [path]
    except OSError as error:
        raise DataError(f"data_dir {where} cannot be read: {error.strerror}") from None
    if is_folder:
        if any("ubyte" in one.name for one in found):
            return idx.read_folder(name, path, limit)
        if images.is_folder(path):
            return images.read(path, name)
    for ending, read in READERS.items():
        if files := [one for one in found if one.suffix == ending]:
            return read(files, name, limit)
    endings = ", ".join(f"*{ending}" for ending in READERS)
    if not is_folder:
        raise DataError(f"data_dir {where} is not a folder, nor one of {endings}")
    raise DataError(
        f"{where} holds no IDX files (*-ubyte), no folders of images, none of {endings}"
    )
