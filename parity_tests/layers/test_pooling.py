"""Pooling against torch.nn's, over its options, ties and NaN included."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from flaxnets import layers, parity
from flaxnets.specs import Input
from torch_ref import layers as torch_layers

AXES = {1: "blc", 2: "bhwc", 3: "bdhwc"}
SIZES = {1: (2, 11, 3), 2: (2, 9, 8, 3), 3: (2, 7, 6, 8, 3)}
MAX = [
    {"kernel_size": k, "stride": s, "padding": p, "dilation": d, "ceil_mode": c}
    for k, s, p, d, c in itertools.product((2, 3), (None, 1, 2), (0, 1), (1, 2), (False, True))
]
AVG = [
    {"kernel_size": k, "stride": s, "padding": p, "ceil_mode": c, "count_include_pad": i}
    for k, s, p, c, i in itertools.product(
        (2, 3), (None, 1, 2), (0, 1), (False, True), (False, True)
    )
]
LP = [
    {"norm_type": p, "kernel_size": k, "stride": s, "ceil_mode": c}
    for p, (k, s, c) in itertools.product(
        (1, 2, -1, float("inf"), -float("inf")), ((2, None, True), (3, 2, False), (3, 2, True))
    )
]


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "options"), [("Max", o) for o in MAX] + [("Avg", o) for o in AVG], ids=str
)
def test_pool(kind, dims, options):
    """Flax and torch agree in outputs and gradients."""
    name = f"{kind}Pool{dims}d"
    parity.check(
        getattr(layers, name)(**options),
        getattr(torch.nn, name)(**options),
        [Input(name="x", shape=SIZES[dims], axes=AXES[dims])],
        ["forward", "gradients"],
    ).raise_if_failed()


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("options", MAX[5::6], ids=str)
def test_min_pool(dims, options):
    """Flax and torch agree in outputs and gradients."""
    name = f"MinPool{dims}d"
    parity.check(
        getattr(layers, name)(**options),
        getattr(torch_layers, name)(**options),
        [Input(name="x", shape=SIZES[dims], axes=AXES[dims])],
        ["forward", "gradients"],
    ).raise_if_failed()


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("options", LP, ids=str)
def test_lp_pool(dims, options):
    """Flax and torch agree in outputs and gradients."""
    name = f"LPPool{dims}d"
    parity.check(
        getattr(layers, name)(**options),
        getattr(torch.nn, name)(**options),
        [Input(name="x", shape=SIZES[dims], axes=AXES[dims])],
        ["forward", "gradients"],
    ).raise_if_failed()


@pytest.mark.parametrize("norm_type", [1.5, 2, 3, 3.5])
def test_lp_pool_zeros(norm_type):
    """Powers of positive numbers agree, and windows whose sum is zero have gradient zero."""
    x = np.abs(np.random.default_rng(0).normal(size=SIZES[2]))
    x[0, :5] = 0
    parity.check(
        layers.LPPool2d(norm_type, 2),
        torch.nn.LPPool2d(norm_type, 2),
        [x],
        ["forward", "gradients"],
    ).raise_if_failed()


def test_ties_and_nan():
    """Of equal maxima torch and Flax give the gradient to the same one, and both keep a NaN."""
    values = np.random.default_rng(0).integers(0, 3, (2, 8, 8, 3)).astype(np.float32)
    parity.check(
        layers.MaxPool2d(3, stride=2), torch.nn.MaxPool2d(3, 2), [values], ["gradients"]
    ).raise_if_failed()
    poisoned = jnp.asarray(values).at[0, 1, 1, 0].set(jnp.nan)
    pooled = torch.nn.MaxPool2d(2)(torch.tensor(np.moveaxis(np.asarray(poisoned), -1, 1)))
    ours = np.moveaxis(np.asarray(layers.MaxPool2d(2)(poisoned)), -1, 1)
    np.testing.assert_array_equal(ours, pooled.numpy())


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: layers.MaxPool2d(2, padding=2), "padding 2 is not between 0 and half"),
        (lambda: layers.LPPool2d(0, 2), "norm_type 0 would divide by zero"),
        (lambda: layers.AvgPool2d(2, divisor_override=0), "divisor_override 0 would divide"),
        (lambda: layers.MaxPool2d(5)(jnp.ones((1, 4, 4, 1))), "no room for a window of 5"),
    ],
)
def test_wrong_options(create, message):
    """Each wrong option is named with its value."""
    with pytest.raises(ValueError, match=message):
        create()
