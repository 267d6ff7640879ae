"""ConvAutoencoder: plain torch.nn weights load into both twins; every size comes back."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import flaxnets
from flaxnets import bridge
from flaxnets.specs import SpecError


def _plain():
    """The network of 28x28 images as torch.nn has it, with the sizes written out."""
    return nn.ModuleDict(
        {
            "encoder": nn.Sequential(
                nn.Conv2d(1, 16, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, stride=2, padding=1),
                nn.ReLU(),
            ),
            "decoder": nn.Sequential(
                nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1),
                nn.ReLU(),
                nn.ConvTranspose2d(16, 1, 3, stride=2, padding=1, output_padding=1),
                nn.Sigmoid(),
            ),
        }
    )


def _last(image):
    return jnp.asarray(image.detach().permute(0, 2, 3, 1).numpy())


def test_foreign_checkpoint():
    """Plain torch.nn layers and both twins give the same images from the same weights."""
    plain = _plain()
    image = torch.rand(4, 1, 28, 28)
    twin, flax = flaxnets.create("conv_autoencoder", "torch"), flaxnets.create("conv_autoencoder")
    twin.load_state_dict(plain.state_dict())
    bridge.load_state_dict(flax, plain.state_dict())
    expected = plain["decoder"](plain["encoder"](image))
    np.testing.assert_array_equal(twin(image).detach(), expected.detach())
    np.testing.assert_allclose(flax(_last(image)), _last(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("in_shape", [(1, 28, 28), (2, 10, 9), (3, 7, 12), (2, 11, 13), (2, 1, 2)])
def test_halves_and_sizes(in_shape):
    """Encoder and decoder alone agree between the twins, and any image comes back in its size."""
    twin = flaxnets.create("conv_autoencoder", "torch", in_shape=in_shape)
    flax = flaxnets.create("conv_autoencoder", in_shape=in_shape)
    bridge.load_state_dict(flax, twin.state_dict())
    image = torch.rand(2, *in_shape)
    code = twin.encode(image)
    assert code.shape[2:] == flaxnets.spec("conv_autoencoder", in_shape=in_shape).sizes[-1]
    np.testing.assert_allclose(flax.encode(_last(image)), _last(code), rtol=1e-4, atol=1e-6)
    code = torch.rand_like(code)
    decoded = twin.decode(code)
    assert decoded.shape == image.shape
    np.testing.assert_allclose(flax.decode(_last(code)), _last(decoded), rtol=1e-4, atol=1e-6)


def test_image_too_small():
    """An image without pixels is refused."""
    with pytest.raises(SpecError, match=r"conv_autoencoder: in_shape \(1, 28, 0\) is too small"):
        flaxnets.spec("conv_autoencoder", in_shape=(1, 28, 0))
