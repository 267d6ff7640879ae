"""What must hold of every data set from files, whoever wrote them."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from flaxnets import data
from flaxnets.specs import Input
from parity_tests.fuzz import memory_below, one_line, untouched

LIMIT = 16 << 20  # bytes that a data set may take
MOST = 40 << 20  # bytes that the process takes then, with what Python and NumPy keep for later


def check_read(place: Path, folder: Path) -> None:
    """A right data set or one line; memory below a bound, and nothing in the folder changed.

    Args:
        place: a file or a folder.
        folder: that is watched.
    """
    with untouched(folder), memory_below(MOST), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow and NumPy, as in a run
        with one_line(data.DataError):
            found = data.load("mine", place, LIMIT)
            check_dataset(found)


def check_dataset(found: data.Dataset) -> None:
    """Shapes, types and ranges are as `Dataset` says, and it fits what it should fit."""
    for inputs, targets in (
        (found.train_inputs, found.train_targets),
        (found.test_inputs, found.test_targets),
    ):
        tokens = inputs[0] if isinstance(inputs, tuple) else None
        assert len(targets) == len(inputs if tokens is None else tokens) >= 1
        if tokens is not None:
            _check_tokens(tokens, inputs[1], len(found.words))
        elif isinstance(inputs, np.ndarray):
            assert inputs.dtype == np.float32
            assert np.isfinite(inputs).all()
        if found.num_classes is None and targets is not tokens:
            assert targets.dtype == np.float32
            assert np.isfinite(targets).all()
        elif targets is not tokens:
            assert targets.dtype == np.int32
            behind = () if tokens is None else [-100]
            assert ((targets >= 0) | np.isin(targets, behind)).all()
            assert targets.max() < found.num_classes
    for wanted in _inputs(found):
        with one_line(data.DataError):
            fitted = data.fit(found, (wanted,), None, LIMIT)
            for inputs in (fitted.train_inputs, fitted.test_inputs):
                assert inputs.shape[1:] == wanted.shape[1:]
                assert np.isfinite(np.asarray(inputs[:2])).all()


def _check_tokens(tokens: np.ndarray, lengths: np.ndarray, words: int) -> None:
    assert tokens.dtype == lengths.dtype == np.int32
    assert lengths.shape == tokens.shape[:1]
    assert lengths.min() >= 1
    assert lengths.max() <= tokens.shape[1]
    assert tokens.min() >= 0
    assert tokens.max() < words


def _inputs(found: data.Dataset) -> list[Input]:
    """What networks eat, of which the data fits some."""
    inputs: Any = found.train_inputs
    wanted = [
        Input(name="x", shape=(1, 7), axes="bf"),
        Input(name="x", shape=(1, 3, 2), axes="btf"),
        Input(name="x", shape=(1, 2), axes="bt", high=3),
    ]
    if isinstance(inputs, tuple):
        steps, words = inputs[0].shape[1], len(found.words)
        wanted.append(Input(name="x", shape=(1, steps), axes="bt", high=words))
        wanted.append(Input(name="x", shape=(1, steps, words), axes="btf"))
    elif isinstance(inputs, data.Lazy):
        wanted.append(Input(name="x", shape=(1, 5, 4, 1), axes="bhwc"))
        wanted.append(Input(name="x", shape=(1, 27), axes="bf"))
    else:
        axes = "bf" if inputs.ndim == 2 else "bhwc"
        wanted.append(Input(name="x", shape=(1, *inputs.shape[1:]), axes=axes))
    return wanted
