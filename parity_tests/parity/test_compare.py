"""Comparison: names, shapes, dtypes, NaN and infinity all count."""

import numpy as np
import pytest

from flaxnets.parity.compare import compare, relative_error

A = np.array([1.0, -2.0, 0.5])


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_not_finite_fails(poison, side):
    """One bad entry on either side, or on both, is an infinite error."""
    pair = [A.copy(), A.copy()]
    pair[side][1] = poison
    assert relative_error(*pair) == np.inf
    assert relative_error(pair[side], pair[side]) == np.inf


def test_relative_to_the_largest():
    """An error is judged by the tensor's largest magnitude; a truth of zero forgives nothing."""
    assert relative_error(A, A + np.array([0, 0, 1e-6])) == pytest.approx(5e-7)
    assert relative_error(np.zeros(2), np.zeros(2)) == 0
    assert relative_error(np.zeros(2), np.ones(2)) == np.inf


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({}, "a: the second side has none"),
        ({"a": A, "b": A}, "b: the first side has none"),
        ({"a": A[:2]}, "a: shape (2,) is not (3,)"),
        ({"a": A.astype(np.float32)}, "a: dtype float32 is not float64"),
    ],
)
def test_form(other, says):
    """Another form is an infinite error that says what differs."""
    assert compare({"a": A}, other) == (np.inf, says)


def test_nothing_is_no_agreement():
    """Two empty collections are not equal; they are nothing."""
    assert compare({}, {}).error == np.inf
