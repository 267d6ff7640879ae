"""How two arrays that should be equal are related: every relation has a name."""

import jax.numpy as jnp
import numpy as np
import pytest

from flaxnets.parity.diagnosis.observations import relation

T = np.array([[1.0, -2.0, 4.0], [0.5, 3.0, -7.0]])
RELATIONS = [
    (-T, "the sign is the other"),
    (T * 3 / 2, "larger by the factor 1.5, n/(n-1) of n = 3"),
    (T / 2, "smaller by the factor 0.5, 1 over the size of axis 0"),
    (T + 0.25, "a constant 0.25 is added"),
    (T * [[1], [2]], "scaled by one factor for each index of axis 0"),
    (T + np.arange(3), "one number for each index of axis 1 is added"),
    (T[::-1], "reversed along axis 0"),
    (np.roll(T, 1, 1), "shifted by +1 along axis 1"),
    (T.T, "axes in the order (1, 0)"),
    (T.ravel()[[3, 1, 0, 2, 5, 4]].reshape(2, 3), "the same numbers in another order"),
    (T * 0, "all zero"),
    (T * np.nan, "6 of 6 numbers are NaN or infinite"),
    (np.where(T == 4, 0, T), "1 of 6 numbers are zero"),
    (np.where(T == 4, 9, T), "1 of 6 numbers differ, the others agree"),
    (T[:1], "shape (1, 3) in place of (2, 3)"),
    (T * T * T, ""),
]


@pytest.mark.parametrize(("other", "text"), RELATIONS, ids=[text for _, text in RELATIONS])
def test_relation(other, text):
    """How two arrays are related is named."""
    assert relation(T, other) == text


def test_rounded():
    """An array that was rounded to a shorter format is known by it."""
    numbers = np.random.default_rng(0).random(9)
    rounded = numbers.astype(jnp.bfloat16).astype(np.float64)
    assert relation(numbers, rounded) == "rounded to bfloat16"
    assert relation(numbers, numbers.astype(np.float32)) == "rounded to float32"
