"""A 64-bit digest of an array that does not depend on where or how its parts are stored.

Every element is a word or two of 32 bits; a word is mixed with its place in the array and the
mixed words are added up modulo 2**32, twice. Integer sums are exact in any order, so an array
on one device, sharded over many, spread over processes or in NumPy has one digest. A change
of a single element always changes it; any other damage goes unseen once in 2**64. It guards
against accidents, not against forgery.

The mixing function is lowbias32 of Chris Wellons' hash prospector (2018).
"""

import hashlib
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

WORDS_AT_ONCE = 1 << 16  # of a NumPy array: what a core's cache holds
SECOND = np.uint32(0x9E3779B9)  # 2**32 / golden ratio: sets the second sum apart from the first


def digests(arrays: Mapping[str, Any]) -> dict[str, str]:
    """The digest of each array under its name, 16 hexadecimal digits.

    Name, shape and dtype count too. In a run of several processes all must call it together.

    Args:
        arrays: `jax.Array`s, sharded or not, or NumPy arrays, of any dtype of whole bytes.

    >>> ours = digests({"w": jnp.arange(6.0)})
    >>> ours == digests({"w": np.arange(6, dtype=np.float32)})
    True
    >>> ours == digests({"w": jnp.arange(6.0).at[5].set(5.0000005)})
    False
    """
    sums = {}
    for name, x in arrays.items():
        sums[name] = _on_host(x) if _on_cpu(x) else _on_device(x)
        if jax.process_count() > 1:  # whose CPUs can hang where several reductions are under way
            jax.block_until_ready(sums[name])
    return {
        name: _text(name, arrays[name], *(int(part) for part in np.asarray(pair)))
        for name, pair in sums.items()
    }


def _on_cpu(array: Any) -> bool:
    """Whether NumPy can read the array where it is; there it saves a compilation a shape."""
    if not isinstance(array, jax.Array):
        return True
    return array.is_fully_addressable and all(d.platform == "cpu" for d in array.devices())


def _text(name: str, array: Any, first: int, second: int) -> str:
    shape = "x".join(map(str, array.shape))
    content = f"{name} {np.dtype(array.dtype).name} {shape} {first:08x}{second:08x}"
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def _mix(x: Any) -> Any:
    """A permutation of the 32-bit words in which every bit of the result hangs on every bit."""
    x ^= x >> 16
    x *= np.uint32(0x21F0AAAD)
    x ^= x >> 15
    x *= np.uint32(0xD35A2D97)
    x ^= x >> 15
    return x


def _on_host(array: Any) -> np.ndarray:
    words = _host_words(np.asarray(array))
    first = second = 0
    for start in range(0, len(words), WORDS_AT_ONCE):
        part = words[start : start + WORDS_AT_ONCE].astype(np.uint32)
        places = np.arange(start, start + len(part), dtype=np.uint64).astype(np.uint32)
        mixed = _mix(part ^ _mix(places))
        first += int(mixed.sum(dtype=np.uint64))
        second += int(_mix(mixed + SECOND).sum(dtype=np.uint64))
    return np.array([first % 2**32, second % 2**32], np.uint32)


def _host_words(array: np.ndarray) -> np.ndarray:
    flat = np.ascontiguousarray(array).reshape(-1)
    if sys.byteorder == "big":
        flat = flat.byteswap()
    return flat.view({1: "<u1", 2: "<u2"}.get(array.itemsize, "<u4"))


@jax.jit
def _on_device(array: jax.Array) -> jax.Array:
    words = _device_words(array)
    # One iota an axis, not one of the flattened array: a reshape would gather the shards.
    place = jnp.zeros((), jnp.uint32)
    stride = 1
    for axis in reversed(range(words.ndim)):
        index = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        place = place + index * jnp.uint32(stride % 2**32)
        stride *= words.shape[axis]
    mixed = _mix(words ^ _mix(place))
    total = partial(jnp.sum, dtype=jnp.uint32)
    return jnp.stack([total(mixed), total(_mix(mixed + SECOND))])


def _device_words(array: jax.Array) -> jax.Array:
    """The bits of the elements as uint32; wider elements have an axis of words, lowest first."""
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    if jnp.iscomplexobj(array):
        parts = jnp.stack([array.real, array.imag], axis=-1)
        return _device_words(parts)
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(array.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)
