"""Splits are the same on every machine; images fit the network or one line says why."""

import time

import numpy as np
import pytest

from flaxnets import data
from flaxnets.data import DataError
from flaxnets.data.dataset import hold_out, split
from flaxnets.specs import Input
from parity_tests.fuzz import memory_below

LABELS = np.repeat(np.arange(3), 10)


def test_split_is_fixed_and_fair():
    """Every class gives the same share, and no image is in both parts."""
    images = np.arange(30, dtype=np.float32).reshape(30, 1, 1, 1)
    parts = split("x", images, LABELS)
    assert np.bincount(parts.test_targets).tolist() == [2, 2, 2]
    together = np.concatenate([parts.train_inputs, parts.test_inputs]).ravel()
    assert sorted(together) == list(range(30))
    np.testing.assert_array_equal(split("x", images, LABELS).test_inputs, parts.test_inputs)


def test_fit_to():
    """Images are resized, repeated over channels, averaged to grey, or laid in a row."""
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    assert data.fit_to(images, (1, 8, 8, 3), "bhwc") is images
    assert data.fit_to(images, (1, 16, 12, 3), "bhwc").shape == (2, 16, 12, 3)
    grey = data.fit_to(images, (1, 8, 8, 1), "bhwc")
    np.testing.assert_allclose(grey[..., 0], images.mean(-1), rtol=1e-6)
    np.testing.assert_array_equal(
        data.fit_to(grey, (1, 8, 8, 4), "bhwc"), np.repeat(grey, 4, axis=-1)
    )
    np.testing.assert_array_equal(data.fit_to(grey, (1, 64), "bf"), grey.reshape(2, 64))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: data.fit_to(x, (1, 10), "bf"), "in_features 10 is no square image of 1 channel"),
        (lambda x: data.fit_to(x, (1, 5, 7), "btf"), "the network eats btf, not images"),
        (
            lambda x: data.fit_to(np.repeat(x, 2, -1), (1, 8, 8, 3), "bhwc"),
            "images of 2 channels do not fit in_channels 3",
        ),
        (lambda x: data.load("imagenet"), "data set 'imagenet' is unknown; use one of mnist"),
    ],
)
def test_wrong_input(call, message):
    """Each mistake gets one line that names it."""
    with pytest.raises(DataError, match=message):
        call(np.zeros((30, 8, 8, 1), np.float32))


def test_many_classes():
    """Four times as many classes of three examples take four times as long, not sixteen times."""

    def seconds(classes):
        found = []
        for _ in range(3):
            start = time.process_time()
            assert hold_out(np.arange(3 * classes) % classes, 0.2).sum() == classes
            found.append(time.process_time() - start)
        return min(found)

    assert seconds(10_000) < 8 * seconds(2_500)


TOKENS = np.zeros((100, 5), np.int32), np.ones(100, np.int32)
IMAGES = np.zeros((100, 4, 4, 1), np.float32)
NONE = np.zeros(100, np.int32)


@pytest.mark.parametrize(
    ("inputs", "wanted", "size"),
    [
        (TOKENS, Input(name="x", shape=(1, 5, 10**6), axes="btf"), "2,000,000,000"),
        (IMAGES, Input(name="x", shape=(1, 1000, 1000, 3), axes="bhwc"), "1,200,000,000"),
    ],
    ids=["tokens", "images"],
)
def test_fit_memory(inputs, wanted, size):
    """What a network of large inputs makes of small data is counted before it is made."""
    mine = data.Dataset("mine", inputs, NONE, inputs, NONE, num_classes=1)
    message = f"mine: the data takes {size} bytes of memory, more than the limit of 1,000,000,000"
    with memory_below(32 << 20), pytest.raises(DataError, match=message):
        data.fit(mine, (wanted,), None, 10**9)


def test_rows_of_a_one():
    """Tokens become rows of zeros and a one, in no more memory than these take."""
    tokens = np.array([[3, 0], [1, 19_999]], np.int32)
    inputs = tokens, np.array([2, 2], np.int32)
    mine = data.Dataset("mine", inputs, NONE[:2], inputs, NONE[:2], num_classes=1)
    wanted = Input(name="x", shape=(1, 2, 20_000), axes="btf")
    with memory_below(32 << 20):
        rows = data.fit(mine, (wanted,), None).train_inputs
    assert (rows.argmax(-1) == tokens).all()
    assert rows.sum() == 4
