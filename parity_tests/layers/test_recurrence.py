"""The loop's written-out gradient against JAX's own of the same loop, once and twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from flaxnets.layers.recurrence import ELMAN, GATED, LONG_SHORT, _forward, recur

TIME, BATCH, HIDDEN = 4, 3, 2
LENGTHS = np.array([4, 2, 1])
# (cell, gates, shapes of the weights behind the first, size of h)
CELLS = {
    "tanh": (ELMAN["tanh"], 1, [], HIDDEN),
    "relu": (ELMAN["relu"], 1, [], HIDDEN),
    "lstm": (LONG_SHORT, 4, [], HIDDEN),
    "projected": (LONG_SHORT, 4, [(1, HIDDEN)], 1),
    "gru": (GATED, 3, [(HIDDEN,)], HIDDEN),
    "gru without bias": (GATED, 3, [], HIDDEN),
}


def drawn(name, dtype="float64"):
    """Random inputs of the loop of a cell: projected inputs, weights and the first state."""
    cell, gates, shapes, size = CELLS[name]
    rng = np.random.default_rng(0)
    sizes = [size, HIDDEN][: 2 if cell is LONG_SHORT else 1]
    wanted = (
        (TIME, BATCH, gates * HIDDEN),
        ((gates * HIDDEN, size), *shapes),
        tuple((BATCH, size) for size in sizes),
    )
    is_shape = {"is_leaf": lambda x: isinstance(x[0], int)}
    return jax.tree.map(lambda s: jnp.asarray(rng.standard_normal(s), dtype), wanted, **is_shape)


def plain(cell, reverse, z, weights, state, keep):
    """The loop with JAX's own gradient."""
    return _forward(cell, reverse, z, weights, state, keep)[0]


@pytest.mark.parametrize(
    ("name", "reverse"), [(name, index % 2 == 1) for index, name in enumerate(CELLS)]
)
def test_gradient(name, reverse):
    """First and second derivatives of all outputs are JAX's own, with every row's length kept."""
    cell = CELLS[name][0]
    keep = jnp.asarray(np.arange(TIME)[:, None, None] < LENGTHS[:, None])

    def first(loop, *given):
        def value(*given):
            found = loop(cell, reverse, *given, keep)
            return sum(jnp.sum(jnp.sin(3 * leaf)) for leaf in jax.tree.leaves(found))

        return jax.grad(value, (0, 1, 2))(*given)

    def second(loop, *given):
        def size(*given):
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(first(loop, *given)))

        return first(loop, *given), jax.grad(size, (0, 1, 2))(*given)

    with jax.enable_x64(True):
        given = drawn(name)
        results = [
            jax.tree.leaves(jax.jit(second, static_argnums=0)(loop, *given))
            for loop in (recur, plain)
        ]
    for ours, theirs in zip(*results, strict=True):
        assert np.abs(theirs).max() > 1e-3
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max())


@pytest.mark.parametrize("name", ["tanh", "lstm", "gru"])
def test_vmap(name):
    """Mapped over weights and inputs, values and gradients are those of one after the other."""
    cell = CELLS[name][0]

    def gradient(*given):
        return jax.grad(lambda *given: jnp.sum(recur(cell, False, *given, None)[0] ** 2), (0, 1))(
            *given
        )

    with jax.enable_x64(True):
        given = drawn(name)
        two = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), given)
        mapped = jax.jit(jax.vmap(gradient))(*two)
        for index in range(2):
            alone = gradient(*jax.tree.map(lambda x, index=index: x[index], two))
            for ours, theirs in zip(*map(jax.tree.leaves, (mapped, alone)), strict=True):
                np.testing.assert_allclose(ours[index], theirs, rtol=0, atol=1e-12)


def test_finite_differences():
    """The gradient is the slope of the function itself."""
    with jax.enable_x64(True):
        check_grads(
            jax.jit(lambda *given: recur(LONG_SHORT, True, *given, None)),
            drawn("projected"),
            order=1,
            modes=["rev"],
        )


def test_forward_mode_is_refused():
    """As the head of the file says: no jvp, but derivatives of the gradient forwards."""
    z, weights, state = drawn("tanh", "float32")

    def value(z):
        return jnp.sum(recur(ELMAN["tanh"], False, z, weights, state, None)[0] ** 2)

    with pytest.raises(TypeError, match="jvp"):
        jax.jvp(value, (z,), (z,))
    assert jax.hessian(value)(z).shape == (*z.shape, *z.shape)
