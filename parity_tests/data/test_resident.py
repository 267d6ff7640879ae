"""What is gathered on the device is what `batches` makes on the host, bit for bit."""

from itertools import islice

import jax
import numpy as np
import pytest

from flaxnets import data
from flaxnets.data import resident

RNG = np.random.default_rng(0)
IMAGES = RNG.random((23, 4, 4, 1), np.float32)
TOKENS = RNG.integers(0, 9, (23, 5)).astype(np.int32), RNG.integers(1, 6, 23).astype(np.int32)
TARGETS = RNG.integers(0, 9, 23).astype(np.int32)
LAZY = data.Lazy(len(IMAGES), lambda number: IMAGES[number])


@pytest.mark.parametrize("inputs", [IMAGES, TOKENS, LAZY], ids=["array", "several", "lazy"])
@pytest.mark.parametrize("start", [0, 4, 11])
def test_gather(inputs, start):
    """Seven batches in one dispatch, over the end of an epoch, from any step on."""
    held = data.Resident(inputs, TARGETS, 5, seed=2)
    indices = np.stack([held.rows(start + i).indices for i in range(7)])
    assert indices.shape == (7, 5)
    assert indices.dtype == np.int32

    @jax.jit
    def many(arrays, indices):
        return jax.lax.scan(lambda _, rows: (None, data.gather(arrays, rows)), None, indices)[1]

    found = many(held.arrays, indices)
    expected = islice(data.batches(inputs, TARGETS, 5, 2), start, start + 7)
    for i, batch in enumerate(expected):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(batch), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a[i], b)


def test_placement():
    """The arrays lie where they are asked to lie."""
    device = jax.devices()[-1]
    held = data.Resident(IMAGES, TARGETS, 5, device=jax.sharding.SingleDeviceSharding(device))
    assert {leaf.device for leaf in jax.tree.leaves(held.arrays)} == {device}
    assert all(leaf.committed for leaf in jax.tree.leaves(held.arrays))


def test_batch_size():
    """An impossible batch size shows before anything is moved."""
    with pytest.raises(data.DataError, match="batch_size 24 is not between 1 and the 23 examples"):
        data.Resident(IMAGES, TARGETS, 24)


class Device:
    """A device of 1,000 bytes, 200 of them in use."""

    platform = "gpu"

    def memory_stats(self):
        """As jax.Device's."""
        return {"bytes_limit": 1000, "bytes_in_use": 200}


@pytest.mark.parametrize(("count", "expected"), [(5, True), (6, False)])
@pytest.mark.parametrize("lazy", [False, True])
def test_fits(count, expected, lazy):
    """A quarter of the 800 bytes that are free is the most, whether read already or not."""
    inputs, targets = np.zeros((count, 9), np.float32), np.zeros(count, np.int32)
    given = data.Lazy(count, lambda number: inputs[number]) if lazy else inputs
    dataset = data.Dataset("x", given, targets, given, targets, num_classes=2)
    assert data.fits(dataset, Device()) == expected


def test_free_memory_of_the_host(monkeypatch, tmp_path):
    """On a CPU it is what the host has, with and without Linux's file."""
    whole = resident.free_memory(jax.devices("cpu")[0])
    assert 2**20 < whole < 2**50
    monkeypatch.setattr(resident, "MEMINFO", tmp_path / "absent")
    assert whole <= resident.free_memory(jax.devices("cpu")[0])
