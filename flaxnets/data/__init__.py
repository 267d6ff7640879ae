"""Data sets that come inside packages, each with a fixed split, and readers for files."""

from collections.abc import Callable
from pathlib import Path

from flaxnets.data import dates, idx, packaged, series, surnames, tagging, text
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


def names() -> tuple[str, ...]:
    """The data sets that `load` knows by name."""
    return tuple(LOADERS)


def load(name: str, data_dir: str | Path | None = None) -> Dataset:
    """A data set by name, or from files.

    Args:
        name: one of `names()`; any name will do for files.
        data_dir: a folder of IDX files as MNIST and Fashion-MNIST are published in; a *.conllu
            file, or a folder with one of train and one of test in its name; a *.txt file, or a
            folder of them; None for the place that the data set is installed in.

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
    for ending, read in ((".conllu", tagging.read), (".txt", text.read)):
        files = sorted(path.glob(f"*{ending}")) if path.is_dir() else [path]
        # Images may have a README.txt beside them.
        if files and files[0].suffix == ending and not any(path.glob("*ubyte*")):
            return read(files, name)
    return idx.read_folder(name, path)
