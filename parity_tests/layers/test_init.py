"""First weights: the numbers of `jax.random`, drawn by few programs."""

import jax
import numpy as np
import pytest
from flax import nnx

import flaxnets
from flaxnets.layers import init

SHAPES = [(), (5,), (3, 4), (1, 300, 400), (2**20 + 1,)]


def _initialiser(kind):
    return {"uniform": init.uniform_fan_in(4), "normal": init.normal(0.5)}[kind]


def _plain(kind, key, shape, dtype):
    if kind == "uniform":
        return jax.random.uniform(key, shape, dtype, -0.5, 0.5)
    return 0.5 * jax.random.normal(key, shape, dtype)


@pytest.mark.parametrize("partitionable", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_numbers(kind, shape, dtype, partitionable):
    """Those of `jax.random` for the shape, also where longer arrays begin with other numbers."""
    key = jax.random.key(7)
    with jax.enable_x64(dtype == "float64"), jax.threefry_partitionable(partitionable):
        found = _initialiser(kind)(key, shape, dtype)
        want = _plain(kind, key, shape, dtype)
    assert found.dtype == dtype
    np.testing.assert_array_max_ulp(np.asarray(found), np.asarray(want), 2)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_traced(kind, impl):
    """In a trace there is no array to cut, and the numbers are the same, of any generator."""
    key = jax.random.key(3, impl=impl)
    found = jax.jit(lambda key: _initialiser(kind)(key, (7, 5)))(key)
    np.testing.assert_array_max_ulp(
        np.asarray(found), np.asarray(_initialiser(kind)(key, (7, 5))), 2
    )


@pytest.mark.parametrize("draw", [init._uniform, init._normal])
def test_few_programs(draw):
    """Small arrays of all shapes and scales come from one program."""
    kind = draw.__name__.removeprefix("_")
    key = jax.random.key(0)
    draw.clear_cache()
    for size in range(1, 20):
        initialiser = init.uniform_fan_in(size) if kind == "uniform" else init.normal(1 / size)
        initialiser(key, (size, 3))
    assert draw._cache_size() == 1


@pytest.mark.parametrize("shape", [(40, 60), (3, 20, 30)])
def test_xavier(shape):
    """Uniform between bounds that rows and columns give, as torch's."""
    found = np.asarray(init.xavier_uniform()(jax.random.key(1), shape))
    bound = np.sqrt(6 / (shape[-2] + shape[-1]))
    assert abs(found).max() <= bound
    assert abs(found.std() / (bound / np.sqrt(3)) - 1) < 0.05


@pytest.mark.parametrize("traced", [False, True])
def test_keys(traced):
    """The keys of `nnx.Rngs`, by every name, also in a trace."""

    def drawn(rngs):
        keys = [rngs.params(), rngs.dropout(), rngs.fork().params(), rngs()]
        return [jax.random.key_data(key) for key in keys]

    found = jax.jit(lambda: drawn(init.rngs(5)))() if traced else drawn(init.rngs(5))
    np.testing.assert_array_equal(found, drawn(nnx.Rngs(5)))


def test_traces_are_not_searched(monkeypatch):
    """A model of many layers is sketched in linear time: no key looks through the trace."""

    def searched(tracer):
        raise AssertionError

    monkeypatch.setattr(jax.core.Tracer, "sharding", property(searched))
    nnx.eval_shape(lambda: flaxnets.create("transformer", variant="tiny"))
    with pytest.raises(AssertionError):
        nnx.eval_shape(lambda: nnx.Rngs(0).params())


def test_key_of_a_closure():
    """A key from outside of what is traced draws the same numbers."""
    key = jax.random.key(7)
    for kind in ("uniform", "normal"):
        draw = _initialiser(kind)
        traced = jax.jit(lambda draw=draw: draw(key, (3, 4)))()
        np.testing.assert_allclose(traced, draw(key, (3, 4)), rtol=1e-6)
