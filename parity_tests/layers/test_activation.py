"""Activations against torch.nn's, at random points and at the points where pieces meet."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from flaxnets import layers, parity

PAIRS = [
    (layers.ReLU(), torch.nn.ReLU()),
    (layers.Tanh(), torch.nn.Tanh()),
    (layers.Sigmoid(), torch.nn.Sigmoid()),
    (layers.GELU(), torch.nn.GELU()),
    (layers.GELU("tanh"), torch.nn.GELU(approximate="tanh")),
    (layers.SiLU(), torch.nn.SiLU()),
    (layers.Softmax(-1), torch.nn.Softmax(-1)),
    (layers.LogSoftmax(-1), torch.nn.LogSoftmax(-1)),
]


@pytest.mark.parametrize(("flax", "torch_"), PAIRS, ids=lambda layer: repr(layer).split("\n")[0])
def test_activation(flax, torch_):
    """Values and gradients agree, also at zero and far out."""
    points = np.concatenate([np.linspace(-6, 6, 25), [-80.0, 80.0]]).astype(np.float32)[None]
    parity.check(flax, torch_, [points], ["forward", "gradients"]).raise_if_failed()


def test_names():
    """The names that specs use mean the same activations on both sides."""
    from torch_ref.layers.activation import BY_NAME

    assert {k: v.__name__ for k, v in BY_NAME.items()} == {
        name: type(layers.activation(name)).__name__ for name in BY_NAME
    }
    x = jnp.linspace(-2, 2, 5)
    assert float(layers.activation("gelu")(x)[0]) == pytest.approx(-0.0455, abs=1e-4)
