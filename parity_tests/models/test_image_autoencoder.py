"""ImageAutoencoder: weights of the seed's own class load into both twins; halves run alone."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import flaxnets
from flaxnets import bridge
from flaxnets.specs import SpecError

SHAPES = [(1, 28, 28), (3, 9, 7)]


class SeedAutoencoder(nn.Module):
    """The seed's class."""

    def __init__(self, in_shape):
        super().__init__()
        c, h, w = in_shape
        self.encoder = nn.Sequential(
            nn.Linear(c * h * w, 128),
            nn.ReLU(),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Linear(64, 12),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            nn.Linear(12, 64),
            nn.ReLU(),
            nn.Linear(64, 128),
            nn.ReLU(),
            nn.Linear(128, c * h * w),
            nn.Sigmoid(),
        )

    def forward(self, x):
        bs, c, h, w = x.size()
        x = x.view(bs, -1)
        x = self.encoder(x)
        x = self.decoder(x)
        return x.view(bs, c, h, w)


def _twins(state, in_shape):
    twin = flaxnets.create("image_autoencoder", "torch", in_shape=in_shape)
    flax = flaxnets.create("image_autoencoder", in_shape=in_shape)
    twin.load_state_dict(state)
    bridge.load_state_dict(flax, state)
    return flax, twin


def _last(image):
    return jnp.asarray(image.detach().permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("in_shape", SHAPES)
def test_seed_checkpoint(in_shape):
    """The seed's class and both twins give the same images from the same weights."""
    seed = SeedAutoencoder(in_shape)
    image = torch.rand(4, *in_shape)
    flax, twin = _twins(seed.state_dict(), in_shape)
    expected = seed(image)
    np.testing.assert_array_equal(twin(image).detach(), expected.detach())
    np.testing.assert_allclose(flax(_last(image)), _last(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("in_shape", SHAPES)
def test_halves(in_shape):
    """Encoder and decoder alone agree between the twins, and together are the whole."""
    flax, twin = _twins(SeedAutoencoder(in_shape).state_dict(), in_shape)
    image, code = torch.rand(4, *in_shape), torch.rand(4, 12)
    np.testing.assert_allclose(
        flax.encode(_last(image)), twin.encode(image).detach(), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        flax.decode(jnp.asarray(code.numpy())), _last(twin.decode(code)), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(twin.decode(twin.encode(image)).detach(), twin(image).detach())


def test_sizes():
    """An image without pixels and a code without numbers are refused."""
    with pytest.raises(SpecError, match=r"image_autoencoder: in_shape \(1, 0, 28\) is too small"):
        flaxnets.spec("image_autoencoder", in_shape=(1, 0, 28))
    with pytest.raises(SpecError, match="image_autoencoder: code_size 0 is too small; use 1"):
        flaxnets.spec("image_autoencoder", code_size=0)
