"""Real data sets that come inside packages, each with a fixed split, and readers for IDX files."""

from collections.abc import Callable
from pathlib import Path

from flaxnets.data import idx, packaged
from flaxnets.data.dataset import DataError, Dataset, batches, fit, fit_to

__all__ = ["DataError", "Dataset", "batches", "fit", "fit_to", "load", "names"]

LOADERS: dict[str, Callable[[], Dataset]] = {
    "mnist": packaged.mnist,
    "digits": packaged.digits,
    "fashion-mnist": idx.fashion_mnist,
    "diabetes": packaged.diabetes,
    "binary": packaged.binary,
    "binary-sums": packaged.binary_sums,
}


def names() -> tuple[str, ...]:
    """The data sets that `load` knows by name."""
    return tuple(LOADERS)


def load(name: str, data_dir: str | Path | None = None) -> Dataset:
    """A data set by name or, as IDX files, from a folder.

    Args:
        name: one of `names()`; any name will do for a folder.
        data_dir: a folder of IDX files as MNIST and Fashion-MNIST are published in; None
            for the place that the data set is installed in.

    Raises:
        DataError: an unknown name, a missing package or file, or a broken file.

    >>> load("digits").train_inputs.shape[1:]
    (8, 8, 1)
    """
    if data_dir is not None:
        return idx.read_folder(name, Path(data_dir))
    if name not in LOADERS:
        raise DataError(
            f"data set {name!r} is unknown; use one of {', '.join(LOADERS)}, or give data_dir"
        )
    return LOADERS[name]()
