"""The fused generator draws the numbers of `jax.random`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxnets.layers.threefry import fused


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 3, 4, 5), (0, 3), (130, 131)])
@pytest.mark.parametrize("jit", [False, True])
def test_bits_are_those_of_jax(shape, jit):
    """Bits of a fused key, and of the key itself, for shapes of any number of axes."""

    def draw(key):
        return jax.random.bits(key, shape)

    key = jax.random.key(2**40 + 17)
    given = (jax.jit(draw) if jit else draw)(fused(key))
    np.testing.assert_array_equal(given, draw(key))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint64"])
def test_bits_of_other_widths_are_those_of_jax(dtype):
    """Bits of a fused key, and of the key itself, where a number is not one count."""
    with jax.enable_x64(True):
        key = jax.random.key(3)
        given = jax.random.bits(fused(key), (5, 7), dtype)
        np.testing.assert_array_equal(given, jax.random.bits(key, (5, 7), dtype))


def test_keys_that_are_derived_draw_the_numbers_of_jax():
    """Numbers of split, folded and mapped keys, fused before and not."""
    key = jax.random.key(5)
    for derive in (jax.random.split, lambda key: jax.random.fold_in(key, 9)[None]):
        given = jax.vmap(lambda key: jax.random.normal(key, (4,)))(derive(fused(key)))
        wanted = jax.vmap(lambda key: jax.random.normal(key, (4,)))(derive(key))
        np.testing.assert_array_equal(given, wanted)


def test_a_key_of_another_generator_stays_as_it_is():
    """The key that goes in, and the one that comes out, where bits are not threefry's."""
    key = jax.random.key(0, impl="rbg")
    assert fused(key) is key


def test_old_counters_are_left_to_jax():
    """Bits of a fused key, and of the key itself, without partitionable counters."""
    with jax.threefry_partitionable(False):
        key = jax.random.key(1)
        np.testing.assert_array_equal(jax.random.bits(fused(key), 9), jax.random.bits(key, 9))


def test_many_bits_need_no_loop():
    """The program of a mask, and a straight line."""
    program = jax.jit(lambda key: jax.random.bernoulli(fused(key), 0.5, (130, 131)))
    text = program.lower(jax.random.key(0)).as_text()
    assert "while" not in text
    assert jnp.issubdtype(fused(jax.random.key(0)).dtype, jax.dtypes.prng_key)


def test_few_bits_are_computed_once():
    """The rounds in the compiled program of a mask that is read thrice; elsewhere no loop."""

    @jax.jit
    def read(key, x):
        kept = jax.random.bernoulli(fused(key), 0.5, x.shape).astype(x.dtype)
        return (x * kept).sum(0), (x * kept).max(1), jnp.exp(x * kept)

    given = jax.random.key(0), jnp.ones((4, 4))
    assert read.lower(*given).compile().as_text().count(" shift-right-logical(") <= 20 + 3
    for platform in ("cuda", "tpu"):
        exported = jax.export.export(read, platforms=[platform])(*given)
        assert "while" not in exported.mlir_module()
