"""Layouts: what the patterns and axes say, and NumPy's own moving of axes."""

import numpy as np
import pytest
from einops import rearrange

from flaxnets.swap.twin.layouts import axis, pattern, reduced

SHAPE = (2, 3, 4, 5, 6)


def _held(array, layout):
    return array if layout is None else np.moveaxis(array, layout, -1)


@pytest.mark.parametrize("ndim", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("before", [None, 0, 1, 2])
@pytest.mark.parametrize("after", [None, 0, 1])
def test_pattern(ndim, before, after):
    """The einops pattern, and moving the axis back and forth."""
    if max(before or 0, after or 0) >= ndim or (before and after is not None and before != after):
        return
    x = np.arange(np.prod(SHAPE[:ndim])).reshape(SHAPE[:ndim])
    if before is not None and after is not None and before != after:
        return
    given, wanted = _held(x, before), _held(x, after)
    found = pattern(ndim, before, after)
    np.testing.assert_array_equal(rearrange(given, found) if found else given, wanted)


@pytest.mark.parametrize("layout", [None, 0, 1, 2])
@pytest.mark.parametrize("dim", [-4, -2, -1, 0, 1, 2, 3])
def test_axis(layout, dim):
    """A sum along torch's axis, and along the axis where it is held."""
    x = np.random.default_rng(0).standard_normal(SHAPE[:4])
    kept = _held(x.sum(dim, keepdims=True), layout)
    np.testing.assert_allclose(_held(x, layout).sum(axis(dim, 4, layout), keepdims=True), kept)
    after = reduced([dim], 4, layout)
    result = _held(x, layout).sum(axis(dim, 4, layout))
    np.testing.assert_allclose(result, _held(x.sum(dim), after))
