"""Random examples fit what a spec describes, and are the same for the same seed."""

import numpy as np
import pytest

import flaxnets
from flaxnets.data import drawn


@pytest.mark.parametrize("name", flaxnets.names())
def test_batch_fits_the_spec(name):
    """Shapes, kinds and ranges of examples and targets are the spec's own."""
    spec = flaxnets.spec(name, "tiny")
    examples, targets = drawn.batch(spec, 5)
    given = examples if isinstance(examples, tuple) else (examples,)
    for array, wanted in zip(given, spec.examples(5), strict=True):
        _fits(array, wanted)
    if spec.targets(5) is None:
        assert targets is None
    else:
        _fits(targets, spec.targets(5))


def _fits(array, wanted):
    assert array.shape == wanted.shape
    assert array.dtype == (np.float32 if wanted.high is None else np.int32)
    high = 1 if wanted.high is None else wanted.high
    kept = array[array != wanted.padding]
    assert kept.min() >= 0
    assert kept.max() < high


def test_seed():
    """One seed gives one batch, another seed another."""
    spec = flaxnets.spec("mlp", "tiny")
    first, again, other = (drawn.batch(spec, 3, seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
