"""Examples that are made when asked for are indexed as an array of them all would be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaxnets.data import Lazy

WHOLE = np.arange(30, dtype=np.float32).reshape(5, 3, 2)
LAZY = Lazy(5, lambda number: WHOLE[number])


@given(
    st.one_of(
        st.integers(-5, 4),
        st.slices(5),
        st.lists(st.integers(-5, 4), max_size=6).map(lambda rows: np.array(rows, np.int32)),
        st.lists(st.booleans(), min_size=5, max_size=5).map(lambda rows: np.array(rows, bool)),
    )
)
def test_index(index):
    """Numbers, slices, arrays of numbers and masks pick what they pick of the array."""
    assert LAZY[index].dtype == np.float32
    np.testing.assert_array_equal(LAZY[index], WHOLE[index])


def test_looks_like_the_array():
    """Sizes, the whole of it, and one by one."""
    for name in ("shape", "ndim", "dtype", "nbytes"):
        assert getattr(LAZY, name) == getattr(WHOLE, name), name
    assert len(LAZY) == len(WHOLE)
    np.testing.assert_array_equal(np.asarray(LAZY), WHOLE)
    np.testing.assert_array_equal(list(LAZY), WHOLE)
    with pytest.raises(IndexError):
        LAZY[5]


def test_reads_what_is_asked_for():
    """Nothing else is read, and a change is made to what is read only."""
    seen = []
    lazy = Lazy(5, lambda number: seen.append(number) or WHOLE[number]).map(lambda x: x + 1)
    np.testing.assert_array_equal(lazy[np.array([3, 1])], WHOLE[[3, 1]] + 1)
    assert seen == [3, 1]
