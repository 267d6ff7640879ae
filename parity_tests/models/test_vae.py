"""VAE: the seed's weights, codes that stand alone, and samples with one set of random numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flaxnets
from flaxnets import bridge
from torch_ref import random
from torch_ref.layers import CenterCrop


class SeedVAE(torch.nn.Module):
    """The seed's class for one channel, where its decoder's single channel is right."""

    def __init__(self, in_shape, n_latent):
        super().__init__()
        c, h, w = in_shape
        self.z_dim = h // 2**2
        self.encoder = torch.nn.Sequential(
            torch.nn.BatchNorm2d(c),
            torch.nn.Conv2d(c, 32, kernel_size=4, stride=2, padding=1),
            torch.nn.BatchNorm2d(32),
            torch.nn.LeakyReLU(),
            torch.nn.Conv2d(32, 64, kernel_size=4, stride=2, padding=1),
            torch.nn.BatchNorm2d(64),
            torch.nn.LeakyReLU(),
        )
        self.z_mean = torch.nn.Linear(64 * self.z_dim**2, n_latent)
        self.z_var = torch.nn.Linear(64 * self.z_dim**2, n_latent)
        self.z_develop = torch.nn.Linear(n_latent, 64 * self.z_dim**2)
        self.decoder = torch.nn.Sequential(
            torch.nn.ConvTranspose2d(64, 32, kernel_size=3, stride=2, padding=0),
            torch.nn.BatchNorm2d(32),
            torch.nn.ReLU(),
            torch.nn.ConvTranspose2d(32, 1, kernel_size=3, stride=2, padding=1),
            CenterCrop(h, w),
            torch.nn.Sigmoid(),
        )

    def encode(self, x):
        x = self.encoder(x)
        x = x.view(x.size(0), -1)
        return self.z_mean(x), self.z_var(x)

    def decode(self, z):
        out = self.z_develop(z)
        return self.decoder(out.view(z.size(0), 64, self.z_dim, self.z_dim))


@pytest.fixture
def twins():
    """Both twins with the weights of the seed's class, and the seed itself; all in evaluation."""
    seed = SeedVAE((1, 32, 32), 16)
    seed.encode(torch.rand(8, 1, 32, 32))  # statistics other than zero and one
    flax, twin = flaxnets.create("vae"), flaxnets.create("vae", "torch")
    twin.load_state_dict(seed.state_dict())
    bridge.load_state_dict(flax, seed.state_dict())
    flax = nnx.view(flax, deterministic=True, use_running_average=True, raise_if_not_found=False)
    return flax, twin.eval(), seed.eval()


def test_seed_checkpoint(twins):
    """Encoder and decoder of the seed and of both twins agree, each alone."""
    flax, twin, seed = twins
    image = torch.rand(3, 1, 32, 32)
    expected = seed.encode(image)
    for ours, theirs, wanted in zip(
        flax.encode(jnp.asarray(image.permute(0, 2, 3, 1).numpy())),
        twin.encode(image),
        expected,
        strict=True,
    ):
        np.testing.assert_array_equal(theirs.detach(), wanted.detach())
        np.testing.assert_allclose(ours, wanted.detach(), rtol=1e-4, atol=1e-5)
    z = torch.randn(3, 16)
    decoded = seed.decode(z).detach()
    np.testing.assert_array_equal(twin.decode(z).detach(), decoded)
    np.testing.assert_allclose(
        flax.decode(jnp.asarray(z.numpy())), decoded.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5
    )


def test_sample(twins):
    """New images from the same key are the same in both twins."""
    flax, twin, _ = twins
    ours = flax.sample(4, rngs=nnx.Rngs(jax.random.key(3)))
    with torch.no_grad(), random.replay(3, [(4, 16)]):
        theirs = twin.sample(4)
    np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


def test_evaluation_repeats_and_training_draws():
    """In evaluation the code is its mean; in training it is drawn, and needs `rngs`."""
    model = flaxnets.create("vae", variant="tiny")
    image = jnp.ones((2, 10, 13, 2))
    first, second = (model(image, rngs=nnx.Rngs(seed))[0] for seed in (0, 1))
    assert not np.array_equal(first, second)
    with pytest.raises(ValueError, match="call it with rngs"):
        model(image)
    quiet = nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)
    np.testing.assert_array_equal(quiet(image)[0], quiet(image)[0])


def test_image_too_small():
    """A size that two strides use up is refused."""
    with pytest.raises(flaxnets.specs.SpecError, match=r"in_shape \(1, 3, 8\) leaves no pixel"):
        flaxnets.spec("vae", in_shape=(1, 3, 8))
