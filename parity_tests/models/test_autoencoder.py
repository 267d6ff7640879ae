"""Autoencoder: weights of the seed's own class load into both twins; each half runs alone."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import flaxnets
from flaxnets import bridge
from flaxnets.specs import SpecError


class SeedAutoencoder(nn.Module):
    """The seed's class, with `self.encoder_2` where it writes `self.self.encoder_2`."""

    def __init__(self, input_size, reduced_size, encoding_size):
        super().__init__()
        self.relu = nn.ReLU()
        self.encoder_1 = nn.Linear(input_size, reduced_size)
        self.encoder_2 = nn.Linear(reduced_size, encoding_size)
        self.decoder_1 = nn.Linear(encoding_size, reduced_size)
        self.decoder_2 = nn.Linear(reduced_size, input_size)

    def forward(self, x):
        x_reduced = self.relu(self.encoder_1(x))
        encoded = self.encoder_2(x_reduced)
        x_expanded = self.relu(self.decoder_1(encoded))
        return self.decoder_2(x_expanded)


def _twins(state):
    twin, flax = flaxnets.create("autoencoder", "torch"), flaxnets.create("autoencoder")
    twin.load_state_dict(state)
    bridge.load_state_dict(flax, state)
    return flax, twin


def test_seed_checkpoint():
    """The seed's class and both twins give the same rows from the same weights."""
    seed = SeedAutoencoder(input_size=10, reduced_size=8, encoding_size=5)
    x = torch.randn(32, 10)
    flax, twin = _twins(seed.state_dict())
    expected = seed(x).detach().numpy()
    np.testing.assert_array_equal(twin(x).detach().numpy(), expected)
    np.testing.assert_allclose(flax(jnp.asarray(x.numpy())), expected, rtol=1e-4, atol=1e-6)


def test_halves():
    """Encoder and decoder alone agree between the twins, and together are the whole."""
    flax, twin = _twins(SeedAutoencoder(10, 8, 5).state_dict())
    x, code = torch.randn(32, 10), torch.randn(32, 5)
    np.testing.assert_allclose(
        flax.encode(jnp.asarray(x.numpy())), twin.encode(x).detach(), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        flax.decode(jnp.asarray(code.numpy())), twin.decode(code).detach(), rtol=1e-4, atol=1e-6
    )
    assert (twin.encode(x) < 0).any()  # the code has no ReLU behind it
    np.testing.assert_array_equal(twin.decode(twin.encode(x)).detach(), twin(x).detach())


@pytest.mark.parametrize("field", ["input_size", "reduced_size", "encoding_size"])
def test_sizes(field):
    """A layer without features is refused."""
    with pytest.raises(SpecError, match=f"autoencoder: {field} 0 is too small; use 1 or more"):
        flaxnets.spec("autoencoder", **{field: 0})
