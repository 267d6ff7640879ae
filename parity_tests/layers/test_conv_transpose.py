"""`layers.ConvTranspose1d` to `ConvTranspose3d` against torch.nn's, over their options."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flaxnets import layers, parity
from flaxnets.specs import Input

AXES = {1: "blc", 2: "bhwc", 3: "bdhwc"}
SIZES = {1: (2, 7, 4), 2: (2, 5, 3, 4), 3: (2, 2, 4, 3, 4)}
GRID = [
    {"stride": s, "padding": p, "output_padding": e, "dilation": d, "groups": g, "bias": g == 1}
    for s, p, e, d, g in itertools.product((1, 2, 3), (0, 1), (0, 1), (1, 2), (1, 2))
    if e < max(s, d)
]
UNEVEN = {"kernel_size": (2, 3), "stride": (3, 1), "padding": (0, 2), "output_padding": (2, 0)}
CASES = [
    *[(dims, {"kernel_size": 3, **options}) for options in GRID for dims in (1, 2)],
    *[(3, {"kernel_size": 3, **options}) for options in GRID[::5]],
    (1, {"kernel_size": 2, "stride": 4}),  # gaps that nothing is written to
    (1, {"kernel_size": 3, "padding": 3}),  # more is taken off than a kernel reaches
    (2, {**UNEVEN, "dilation": (1, 2), "groups": 4}),
]


@pytest.mark.parametrize(("dims", "options"), CASES, ids=str)
def test_conv_transpose(dims, options):
    """Flax and torch agree in outputs, gradients and the bits of the weights."""
    kind = f"ConvTranspose{dims}d"
    parity.check(
        getattr(layers, kind)(4, 8, **options, rngs=nnx.Rngs(0)),
        getattr(torch.nn, kind)(4, 8, **options),
        [Input(name="x", shape=SIZES[dims], axes=AXES[dims])],
        ["forward", "gradients", "round_trip"],
    ).raise_if_failed()


@pytest.mark.parametrize("groups", [1, 2])
def test_initialisation(groups):
    """Fresh weights of Flax and torch come from one distribution."""

    def create(seed):
        torch.manual_seed(seed)
        return torch.nn.ConvTranspose2d(4, 6, 3, groups=groups)

    parity.check(
        lambda seed: layers.ConvTranspose2d(4, 6, 3, groups=groups, rngs=nnx.Rngs(seed)),
        create,
        [Input(name="x", shape=SIZES[2], axes=AXES[2])],
        ["initialisation"],
    ).raise_if_failed()


def test_compiled():
    """Jitted, scanned and eager agree, the step lowers everywhere, float32 is as exact as torch."""
    parity.check(
        layers.ConvTranspose2d(4, 6, 4, 2, 1, rngs=nnx.Rngs(0)),
        torch.nn.ConvTranspose2d(4, 6, 4, 2, 1),
        [Input(name="x", shape=SIZES[2], axes=AXES[2])],
        ["compiled", "lowering", "float32"],
    ).raise_if_failed()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype):
    """In two bytes outputs and gradients keep their dtype and agree with float32 to its bits."""
    layer = layers.ConvTranspose1d(3, 5, 4, 2, 1, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    x = jax.random.normal(jax.random.key(0), (2, 6, 3))

    def gradients(dtype):
        cast = jax.tree.map(lambda array: array.astype(dtype), (state, x))
        call = lambda state, x: nnx.merge(graph, state)(x)  # noqa: E731
        y, back = jax.vjp(call, *cast)
        return jax.tree.leaves((y, back(y)))

    for half, truth in zip(gradients(dtype), gradients("float32"), strict=True):
        assert half.dtype == dtype
        error = jnp.abs(half.astype("float32") - truth).max() / jnp.abs(truth).max()
        assert float(error) < 4 * jnp.finfo(dtype).eps


def test_batch_axes():
    """No batch axis, or several, give what one gives."""
    layer = layers.ConvTranspose1d(3, 5, 4, 2, 1, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    y = layer(x)
    assert y.shape == (2, 4, 12, 5)
    np.testing.assert_allclose(y[1], layer(x[1]), atol=1e-6)
    np.testing.assert_allclose(y[1, 2], layer(x[1, 2]), atol=1e-6)


@pytest.mark.parametrize(
    ("create", "message"),
    [
        ({"groups": 3}, "in_channels 4 is not a multiple of groups 3"),
        ({"groups": 4}, "out_channels 6 is not a multiple of groups 4"),
        ({"output_padding": 1}, "output_padding 1 is not below stride 1 or dilation 1; use 0 to 0"),
        ({"stride": (1, 1, 1)}, r"stride \(1, 1, 1\) has 3 entries; use 1 or 2"),
        ({"padding": 3}, r"an input of \(3, 4\) pixels leaves an output of \(-1, 0\)"),
    ],
)
def test_wrong_options(create, message):
    """Each wrong option is named with its value."""
    with pytest.raises(ValueError, match=message):
        layers.ConvTranspose2d(4, 6, 3, **create, rngs=nnx.Rngs(0))(jnp.ones((1, 3, 4, 4)))
