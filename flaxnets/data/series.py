"""Series of numbers in time, one after the other; the end is for the test."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from flaxnets.data.dataset import Dataset
from flaxnets.data.packaged import package


def sunspots() -> Dataset:
    """The number of sunspots of the years 1700 to 2008, from statsmodels."""
    load = package("statsmodels.datasets", "statsmodels").sunspots.load
    return series("sunspots", np.asarray(load().endog, np.float64), 0.2)


def co2() -> Dataset:
    """Carbon dioxide over Mauna Loa in ppm, 2,284 weeks from 1958 to 2001, from statsmodels.

    Weeks that were not measured (59) lie on a line between their neighbours. It rises: four fifths
    of the test lie above all that is learned from.
    """
    load = package("statsmodels.datasets", "statsmodels").co2.load
    return replace(series("co2", np.asarray(load().data["co2"], np.float64), 0.25), trend=True)


def series(name: str, values: Float[np.ndarray, " n"], share: float) -> Dataset:
    """A series as data: gaps filled, the mean of the training part 0 and its variance 1.

    Args:
        name: of the data set.
        values: at even distances; NaN where there is none, but not at the ends.
        share: of the values, the last, for the test.

    >>> series("x", np.array([0.0, np.nan, 4.0, 4.0, 9.0]), 0.2).test_inputs[:4].round(2)
    array([-1.51, -0.3 ,  0.9 ,  0.9 ], dtype=float32)
    """
    places = np.arange(len(values))
    given = np.isfinite(values)
    values = np.interp(places, places[given], values[given])
    train = values[: len(values) - round(len(values) * share)]
    whole = ((values - train.mean()) / train.std()).astype(np.float32)
    part = whole[: len(train)]
    return Dataset(name, part, part, whole, whole, num_classes=None)
