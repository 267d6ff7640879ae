"""Adaptive pooling against torch.nn's: sizes that divide, do not, exceed the input."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from flaxnets import layers, parity
from flaxnets.specs import Input

AXES = {1: "blc", 2: "bhwc", 3: "bdhwc"}
SIZES = {1: (2, 12, 3), 2: (2, 9, 8, 3), 3: (2, 7, 6, 4, 3)}
CASES = [
    *[(1, size) for size in (1, 4, 5, 7, 12, 25)],
    *[(2, size) for size in (1, 3, 4, (5, 3), (None, 3), (2, None), (9, 8), (20, 16))],
    *[(3, size) for size in (1, 3, (2, None, 5), (None, 4, 1), (7, 3, 9))],
]


@pytest.mark.parametrize("kind", ["Avg", "Max"])
@pytest.mark.parametrize(("dims", "size"), CASES, ids=str)
def test_adaptive_pool(kind, dims, size):
    """Flax and torch agree in outputs and gradients."""
    name = f"Adaptive{kind}Pool{dims}d"
    parity.check(
        getattr(layers, name)(size),
        getattr(torch.nn, name)(size),
        [Input(name="x", shape=SIZES[dims], axes=AXES[dims])],
        ["forward", "gradients"],
    ).raise_if_failed()


@pytest.mark.parametrize("size", [3, 5])
def test_ties(size):
    """Of equal maxima torch and Flax give the gradient to the same one."""
    values = np.random.default_rng(0).integers(0, 3, (2, 9, 9, 3)).astype(np.float32)
    parity.check(
        layers.AdaptiveMaxPool2d(size), torch.nn.AdaptiveMaxPool2d(size), [values], ["gradients"]
    ).raise_if_failed()


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("kind", ["Avg", "Max"])
@pytest.mark.parametrize("poison", [np.nan, -np.inf, np.inf])
def test_not_finite(kind, size, poison):
    """A NaN or an infinity shows in the windows that hold it and in no other."""
    x = np.random.default_rng(0).normal(size=(2, 9, 9, 3)).astype(np.float32)
    x[0, 4, 4, 0] = x[1, :5, :5, 1] = poison
    name = f"Adaptive{kind}Pool2d"
    theirs = getattr(torch.nn, name)(size)(torch.tensor(np.moveaxis(x, -1, 1))).numpy()
    ours = np.moveaxis(np.asarray(getattr(layers, name)(size)(jnp.asarray(x))), -1, 1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_none():
    """None for every axis leaves the input as it is."""
    x = jnp.arange(6.0).reshape(1, 3, 2)
    assert layers.AdaptiveMaxPool1d(None)(x).tolist() == x.tolist()


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: layers.AdaptiveAvgPool2d(0), r"output_size \(0, 0\) is too small; use 1 or more"),
        (lambda: layers.AdaptiveMaxPool2d((1, 2, 3)), r"\(1, 2, 3\) has 3 entries; use 1 or 2"),
        (
            lambda: layers.AdaptiveAvgPool1d(2)(jnp.ones((1, 0, 2))),
            r"input \(1, 0, 2\) has no pixels",
        ),
        (lambda: layers.AdaptiveAvgPool2d(2)(jnp.ones((3, 2))), "fewer than 3 axes"),
    ],
)
def test_wrong_options(create, message):
    """Each wrong option is named with its value."""
    with pytest.raises(ValueError, match=message):
        create()
