"""The random bits of `jax.random`'s default generator, in one fused loop.

On a CPU JAX computes threefry in a loop of five turns, each of which writes its arrays to memory
and reads them again; written out, XLA keeps all twenty rounds in registers: masks of dropout
took 4 to 6 times as long. Elsewhere JAX writes the rounds out, too, and nothing changes.

Of few numbers XLA copies all rounds into everything that reads them: the step of a small
Transformer held them 480 times for 20 masks, and took twice as long to compile. There they stay
in a loop of their own.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import random
from jaxtyping import Array, Key, UInt32

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA  # of the key schedule
FEW = 2**14  # numbers, which take microseconds in a loop as well


@functools.partial(jax.jit, static_argnums=(1, 2), inline=True)
def _bits(key: UInt32[Array, "2"], width: int, shape: tuple[int, ...]) -> Array:
    if width != 32 or math.prod(shape) >= 2**32:  # which need more than one count a number
        return random.threefry_prng_impl.random_bits(key, width, shape)
    rounds = functools.partial(_rounds, shape)
    if math.prod(shape) > FEW:
        return rounds(key)
    return lax.platform_dependent(key, cpu=functools.partial(_apart, rounds), default=rounds)


def _rounds(shape: tuple[int, ...], key: UInt32[Array, "2"]) -> Array:
    count = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        place = lax.broadcasted_iota(jnp.uint32, shape, axis)
        count += place * jnp.uint32(math.prod(shape[axis + 1 :]))
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(PARITY))
    high, low = schedule[0], count + schedule[1]
    for block in range(5):
        for rotation in ROTATIONS[block % 2]:
            high = high + low
            low = ((low << rotation) | (low >> (32 - rotation))) ^ high
        high = high + schedule[(block + 1) % 3]
        low = low + schedule[(block + 2) % 3] + jnp.uint32(block + 1)
    return high ^ low


def _apart(rounds: Callable, key: UInt32[Array, "2"]) -> Array:
    """The same in a loop of one turn, of which XLA does not see that it is one."""
    turns = lax.min(key[0], jnp.uint32(0)) + jnp.uint32(1)
    shape = jax.eval_shape(rounds, key)
    start = jnp.uint32(0), jnp.zeros(shape.shape, shape.dtype)
    return lax.while_loop(lambda at: at[0] < turns, lambda at: (at[0] + 1, rounds(key)), start)[1]


_FUSED = random.define_prng_impl(
    key_shape=(2,),
    seed=random.threefry_prng_impl.seed,
    split=random.threefry_prng_impl.split,
    random_bits=_bits,
    fold_in=random.threefry_prng_impl.fold_in,
    name="fused_threefry2x32",
    tag="ffry",
)


def counted(key: Key[Array, ""]) -> bool:
    """Whether a number depends on the key and its place alone, not on how many are drawn.

    >>> counted(jax.random.key(0)), counted(jax.random.key(0, impl="rbg"))
    (True, False)
    """
    return jax.random.key_impl(key) == "threefry2x32" and jax.threefry_partitionable.value


def fused(key: Key[Array, ""]) -> Key[Array, ""]:
    """A key that draws the same numbers faster; one of another generator is returned as it is.

    Args:
        key: of `jax.random.key`.

    Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".

    >>> key = jax.random.key(0)
    >>> bool((jax.random.bits(fused(key), 9) == jax.random.bits(key, 9)).all())
    True
    """
    if not counted(key):
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_FUSED)
