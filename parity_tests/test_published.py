"""The numbers that the seeds print come out of both backends, to the four decimals printed."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flaxnets
from flaxnets import bridge, layers

FOUR_DECIMALS = 5.1e-5  # half of the last one printed, and float32's rounding


def _near(array, printed):
    np.testing.assert_allclose(np.asarray(array), printed, rtol=0, atol=FOUR_DECIMALS)


@pytest.fixture
def drawn():
    """What the seed draws, in its order, after `torch.manual_seed(42)`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(42)
        linear = torch.nn.Linear(4, 3)
        return linear, torch.rand(1, 4), torch.rand(1, 6, 6), torch.rand(1, 4, 4) * 20 + 5


def test_linear(drawn):
    """A linear layer of three outputs."""
    linear, x, _, _ = drawn
    printed = [[0.9562, 0.0486, 0.3799]]
    ours = layers.Linear(4, 3, rngs=nnx.Rngs(0))
    bridge.load_state_dict(ours, linear.state_dict())
    _near(linear(x).detach(), printed)
    _near(ours(jnp.asarray(x.numpy())), printed)


def test_max_pooling(drawn):
    """The largest entries of the four quadrants."""
    image = drawn[2]
    printed = [[0.8860, 0.9516], [0.9464, 0.9103]]
    _near(torch.nn.MaxPool2d(3)(image)[0], printed)
    _near(layers.MaxPool2d(3)(jnp.asarray(image.numpy())[..., None])[0, ..., 0], printed)


def test_batch_normalisation(drawn):
    """A matrix of mean 15.1068, and what BatchNorm in training makes of it."""
    x = drawn[3]
    printed = [
        [0.1413, -0.2023, -1.3726, 1.4335],
        [-1.0121, 0.7081, -0.9499, 1.2538],
        [-1.0578, 0.3467, -0.7642, 1.4754],
        [-0.5735, -0.5792, -0.5793, 1.7320],
    ]
    assert x.mean().item() == pytest.approx(15.1068, abs=FOUR_DECIMALS)
    _near(torch.nn.BatchNorm1d(4)(x)[0].detach(), printed)
    ours = layers.BatchNorm1d(4)
    channels_last = jnp.moveaxis(jnp.asarray(x.numpy()), 1, -1)
    _near(jnp.moveaxis(ours(channels_last), -1, 1)[0], printed)


def test_linear_network():
    """The matrices of the two-layer linear network, of 220 numbers at 3-20-8, of 30 at 3-6-2."""
    generator = torch.Generator().manual_seed(1)
    state = {
        "W1": torch.randn((3, 6), generator=generator),
        "W2": torch.randn((6, 2), generator=generator),
    }
    model = flaxnets.create("linear_network", variant="regression")
    twin = flaxnets.create("linear_network", "torch", "regression")
    bridge.load_state_dict(model, state)
    twin.load_state_dict(state)
    for weights in (bridge.state_dict(model), bridge.state_dict(model) | twin.state_dict()):
        _near(weights["W1"][0, 0].item(), -1.5256)
        _near(weights["W2"][0, 0].item(), 0.3935)
    assert sum(value.size for value in bridge.state_dict(model).values()) == 30
    large = bridge.state_dict(flaxnets.create("linear_network"))
    assert sum(value.size for value in large.values()) == 220
