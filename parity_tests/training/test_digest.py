"""The digest: devices and NumPy agree on it, and damage changes it."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from flaxnets.training import digest
from flaxnets.training.digest import digests

DTYPES = [
    *(np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn),
    *(np.int64, np.int32, np.int16, np.int8, np.uint64, np.uint32, np.uint16, np.uint8),
    *(np.bool_, np.complex64, np.complex128),
]


def _array(shape, dtype=np.float32, seed=0):
    """Arbitrary bits, NaN and infinity among them."""
    size = np.dtype(dtype).itemsize * int(np.prod(shape))
    content = np.random.default_rng(seed).bytes(size)
    if dtype == np.bool_:
        return (np.frombuffer(content, np.uint8) > 127).reshape(shape)
    return np.frombuffer(content, dtype).reshape(shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_host_and_device_agree(dtype):
    """The NumPy sums and the jitted sums are the same words, for every dtype."""
    array = _array((3, 5, 7), dtype)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(
            digest._on_host(array), np.asarray(digest._on_device(jnp.asarray(array)))
        )


@pytest.mark.parametrize("shape", [(), (0,), (1,), (1 << 16,), (3, 1 << 15), ((1 << 17) + 3,)])
def test_sizes_agree(shape):
    """Arrays of no, one and several host blocks have the device's sums."""
    array = _array(shape)
    np.testing.assert_array_equal(
        digest._on_host(array), np.asarray(digest._on_device(jnp.asarray(array)))
    )


def _flip_a_bit(array):
    array.view(np.uint32)[7, 3] ^= 1 << 19


def _swap(array):
    array[[0, 8]] = array[[8, 0]]


def _swap_two(array):
    array[0, 0], array[9, 4] = array[9, 4], array[0, 0]


def _zero(array):
    array[2:4] = 0


def _shift(array):
    array[:] = np.roll(array, 1)


@pytest.mark.parametrize("damage", [_flip_a_bit, _swap, _swap_two, _zero, _shift])
@pytest.mark.parametrize("sums", [digest._on_host, lambda x: digest._on_device(jnp.asarray(x))])
def test_damage(damage, sums):
    """Both sums of a damaged array differ from those of the array."""
    array = _array((10, 5))
    damaged = array.copy()
    damage(damaged)
    assert (np.asarray(sums(array)) != np.asarray(sums(damaged))).all()


def test_every_single_bit():
    """No flip of one bit goes unseen: of 3200 each changes the digest, each in its own way."""
    array = _array((10, 10))
    seen = {digests({"w": array})["w"]}
    for place in range(array.size):
        for bit in range(32):
            damaged = array.copy()
            damaged.view(np.uint32).reshape(-1)[place] ^= np.uint32(1 << bit)
            seen.add(digests({"w": damaged})["w"])
    assert len(seen) == 3201


def test_name_shape_and_dtype_count():
    """The same bits under another name, shape or dtype have another digest."""
    array = _array((4, 6))
    others = [digests({"w": other})["w"] for other in (array, array.T.copy().reshape(6, 4))]
    others += [digests({"w": array.reshape(6, 4)})["w"], digests({"w": array.view(np.int32)})["w"]]
    others += [digests({"v": array})["v"], digests({"w": array[None]})["w"]]
    assert len(set(others)) == 6


def test_order_of_memory():
    """A transposed view has the digest of its copy."""
    array = _array((4, 6))
    assert digests({"w": array.T}) == digests({"w": array.T.copy()})


def test_known_value():
    """The digest is part of the file format: it must not change between versions."""
    assert digests({"w": np.arange(6, dtype=np.float32)}) == {"w": "2e234b99a6486e41"}
