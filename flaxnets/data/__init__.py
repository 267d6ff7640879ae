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
from flaxnets.data.dataset import DataError, Dataset, fit, fit_to
from flaxnets.data.lazy import Lazy
from flaxnets.data.resident import Resident, fits, gather
from flaxnets.data.sampler import batches, order

__all__ = [
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

READERS: dict[str, Callable[[list[Path], str], Dataset]] = {
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


def load(name: str, data_dir: str | Path | None = None) -> Dataset:
    """A data set by name, or from files.

    Args:
        name: one of `names()`; any name will do for files.
        data_dir: a folder of IDX files as MNIST and Fashion-MNIST are published in; a folder of
            images with one subfolder a class, or two such folders, train and test; a *.npz file;
            a *.csv or *.conllu file, or a folder with one of train and one of test in its name;
            a *.txt file, or a folder of them; None for the place that the data set is installed
            in. Of a folder with several of these the first kind is read.

    Raises:
        DataError: an unknown name, a missing package or file, or a broken file.

    >>> load("digits").train_inputs.shape[1:]
    (8, 8, 1)
    """
    if data_dir is not None:
        return _read(name, Path(data_dir))
    if name not in LOADERS:
        raise DataError(
            f"data set {name!r} is unknown; use one of {', '.join(LOADERS)}, or give data_dir"
        )
    return LOADERS[name]()


def _read(name: str, path: Path) -> Dataset:
    """From files of the first kind that is there."""
    if path.is_dir():
        if any(path.glob("*ubyte*")):
            return idx.read_folder(name, path)
        if images.is_folder(path):
            return images.read(path, name)
    for ending, read in READERS.items():
        files = sorted(path.glob(f"*{ending}")) if path.is_dir() else [path]
        if files and files[0].suffix == ending:
            return read(files, name)
    endings = ", ".join(f"*{ending}" for ending in READERS)
    if not path.is_dir():
        raise DataError(f"data_dir {path} is not a folder, nor one of {endings}")
    raise DataError(f"{path} holds no IDX files (*-ubyte), no folders of images, none of {endings}")
