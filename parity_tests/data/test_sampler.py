"""The order of examples follows from seed and epoch; a batch follows from its number."""

import hashlib
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxnets import data
from flaxnets.data.sampler import chosen


def test_order_is_written_down():
    """The order agrees with the one that earlier versions trained in: old runs can be repeated."""
    assert data.order(0, 0, 8).tolist() == [5, 0, 6, 1, 7, 2, 4, 3]
    assert data.order(7, 3, 8).tolist() == [4, 3, 5, 6, 0, 7, 1, 2]
    digest = hashlib.sha256(data.order(1, 2, 60_000).astype("<i8").tobytes()).hexdigest()
    assert digest.startswith("82af274b80a73740")


def test_order_cannot_be_spoiled():
    """Who is given an order cannot change the one that is given next."""
    with pytest.raises(ValueError, match="read-only"):
        data.order(0, 0, 8)[0] = 1


@given(st.integers(-(2**63), 2**64 - 1), st.integers(0, 1000), st.integers(1, 50))
def test_order_is_a_permutation(seed, epoch, count):
    """Every example occurs once, whatever the seed; seeds above 2**63 are told apart."""
    assert sorted(data.order(seed, epoch, count)) == list(range(count))
    assert data.order(seed, epoch, count).dtype == np.int32
    long = data.order(seed, epoch, 1000)
    assert not np.array_equal(long, data.order(seed + 1, epoch, 1000))
    assert not np.array_equal(long, data.order(seed, epoch + 1, 1000))
    assert not np.array_equal(long, data.order(seed ^ 2**63, epoch, 1000))


@settings(deadline=None)
@given(st.integers(1, 20), st.data())
def test_epochs(count, draw):
    """The batches of an epoch are its order, less the rest that fills none."""
    batch_size = draw.draw(st.integers(1, count))
    epoch = draw.draw(st.integers(0, 5))
    steps = count // batch_size
    rows = [chosen(3, epoch * steps + i, batch_size, count) for i in range(steps)]
    np.testing.assert_array_equal(
        np.concatenate(rows), data.order(3, epoch, count)[: steps * batch_size]
    )


def test_batches():
    """An epoch holds every example once; another seed or epoch has another order."""
    inputs, labels = np.arange(30), np.repeat(np.arange(3), 10)

    def epochs(seed):
        stream = data.batches(inputs, labels, 10, seed)
        return [np.concatenate([next(stream)[0] for _ in range(3)]) for _ in range(2)]

    first, second = epochs(0)
    assert sorted(first) == sorted(second) == list(range(30))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(epochs(0), [first, second])
    assert not np.array_equal(epochs(1)[0], first)


@pytest.mark.parametrize("start", [1, 2, 3, 7, 30])
def test_start(start):
    """Batches from a number on are those that a stream from the beginning comes to."""
    inputs, targets = (np.arange(20.0).reshape(10, 2), np.arange(10)), np.arange(10)
    whole = islice(data.batches(inputs, targets, 4, seed=1), start, start + 5)
    for (a, b), (c, d) in zip(
        whole, data.batches(inputs, targets, 4, seed=1, start=start), strict=False
    ):
        np.testing.assert_array_equal(a[0], c[0])
        np.testing.assert_array_equal(a[1], c[1])
        np.testing.assert_array_equal(b, d)


@pytest.mark.parametrize(
    ("batch_size", "start", "message"),
    [
        (31, 0, "batch_size 31 is not between 1 and the 30 examples"),
        (0, 0, "batch_size 0 is not between"),
        (4, -1, "step -1 is before the first; use 0 or more"),
    ],
)
def test_wrong_input(batch_size, start, message):
    """Each mistake gets one line that names it."""
    with pytest.raises(data.DataError, match=message):
        next(data.batches(np.zeros(30), np.zeros(30), batch_size, start=start))
