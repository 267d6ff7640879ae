"""Series of numbers: published values, standardised by what is trained on."""

import dataclasses
import sys

import numpy as np
import pytest

from flaxnets import data
from flaxnets.data import series
from flaxnets.specs import Input


@pytest.mark.parametrize(("name", "count", "held_out"), [("sunspots", 309, 62), ("co2", 2284, 571)])
def test_series(name, count, held_out):
    """As many values as published; the training part begins the whole and has unit variance."""
    found = data.load(name)
    train, whole = found.train_inputs, found.test_inputs
    assert whole.shape == (count,)
    assert whole.dtype == np.float32
    assert len(train) == count - held_out
    np.testing.assert_array_equal(train, whole[: len(train)])
    assert abs(train.mean()) < 1e-5
    assert abs(train.std() - 1) < 1e-5
    assert found.test_targets is whole
    assert found.num_classes is None


def test_values():
    """Sunspots are 5, 11, 16, 23 from 1700 on: differences keep their proportion."""
    steps = np.diff(data.load("sunspots").train_inputs[:4])
    np.testing.assert_allclose(steps / steps[0], [1, 5 / 6, 7 / 6], rtol=1e-5)


def test_gaps():
    """What was not measured lies between its neighbours, at the places of the gaps."""
    found = series.series("x", np.array([1.0, np.nan, np.nan, 4.0, 5.0]), 0.2)
    np.testing.assert_allclose(np.diff(found.test_inputs, 2), 0, atol=1e-6)
    assert np.isfinite(data.load("co2").test_inputs).all()


def test_windows():
    """Windows of the test forecast the last fifth and nothing before it."""
    inputs = (Input(name="x", shape=(1, 20, 10), axes="btf"),)
    found = data.load("sunspots")
    fitted = data.fit(found, inputs, Input(name="y", shape=(1, 5), axes="bf"))
    assert fitted.train_inputs.shape == (247 - 20 - 10 - 5 + 2, 20, 10)
    assert fitted.test_inputs.shape == (62 - 5 + 1, 20, 10)
    np.testing.assert_array_equal(fitted.test_targets[0], found.test_inputs[247:252])
    np.testing.assert_array_equal(fitted.test_targets[-1], found.test_inputs[-5:])
    np.testing.assert_array_equal(fitted.test_inputs[0, -1], found.test_inputs[237:247])


@pytest.mark.parametrize("each", [False, True])
def test_trend(each):
    """A series that leaves its range is told from the last value of each window on."""
    values = np.arange(40.0) ** 2
    plain = data.Dataset("x", values[:30], values[:30], values, values, None)
    inputs = (Input(name="x", shape=(1, 4, 3), axes="btf"),)
    targets = Input(name="y", shape=(1, 4, 2) if each else (1, 2), axes="btf" if each else "bf")
    found = data.fit(dataclasses.replace(plain, trend=True), inputs, targets)
    absolute = data.fit(plain, inputs, targets)
    for part in ("train", "test"):
        whole, following = (getattr(absolute, f"{part}_{kind}") for kind in ("inputs", "targets"))
        moved, forecast = (getattr(found, f"{part}_{kind}") for kind in ("inputs", "targets"))
        for row, last in enumerate(whole[:, -1, -1]):
            np.testing.assert_array_equal(moved[row], whole[row] - last)
            np.testing.assert_array_equal(forecast[row], following[row] - last)
    assert dataclasses.replace(plain, trend=True).digest() != plain.digest()
    assert data.load("co2").trend
    assert not data.load("sunspots").trend


@pytest.mark.parametrize("name", ["sunspots", "co2"])
def test_absent_package(monkeypatch, name):
    """Without statsmodels, what to install is named."""
    monkeypatch.setitem(sys.modules, "statsmodels.datasets", None)
    with pytest.raises(data.DataError, match=r"statsmodels is not installed; pip install"):
        data.load(name)
