"""Conv2DNet: weights of the seed's own class load into both twins; sizes and dimensions."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import flaxnets
from flaxnets import bridge
from flaxnets.specs import SpecError


class SeedConv2DNet(nn.Module):
    """The seed's class."""

    def __init__(self, num_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels=3, out_channels=10, kernel_size=5, stride=2, padding=2)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(kernel_size=2)
        self.conv2 = nn.Conv2d(in_channels=10, out_channels=10, kernel_size=2, stride=2, padding=1)
        self.maxpool = nn.MaxPool2d(kernel_size=2)
        self.output = nn.Linear(10, num_classes)

    def forward(self, x):
        out = self.conv1(x)
        out = self.relu(out)
        out = self.maxpool(out)
        out = self.conv2(out)
        out = self.relu(out)
        out = self.maxpool(out)
        out = out.view(out.size(0), -1)
        return self.output(out)


def test_seed_checkpoint():
    """The seed's class and both twins give the same logits from the same weights."""
    seed = SeedConv2DNet(10)
    image = torch.randn(32, 3, 20, 20)
    twin, flax = flaxnets.create("conv_net", "torch"), flaxnets.create("conv_net")
    twin.load_state_dict(seed.state_dict())
    bridge.load_state_dict(flax, seed.state_dict())
    expected = seed(image).detach().numpy()
    assert expected.shape == (32, 10)
    np.testing.assert_array_equal(twin(image).detach().numpy(), expected)
    np.testing.assert_allclose(
        flax(jnp.asarray(image.permute(0, 2, 3, 1).numpy())), expected, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("size", [7, 8, 23])
def test_sizes_are_derived(dims, size):
    """Both twins take any size that leaves a pixel, in one, two and three dimensions."""
    spec = flaxnets.spec("conv_net", spatial_dims=dims, image_size=size, channels=(2, 3))
    (eaten,) = spec.inputs(2)
    assert flaxnets.build(spec)(jnp.zeros(eaten.shape)).shape == (2, 10)
    image = torch.zeros(2, 3, *[size] * dims)
    assert flaxnets.build(spec, "torch")(image).shape == (2, 10)


@pytest.mark.parametrize("size", [6, 1, 0, -20])
def test_image_too_small(size):
    """An image that leaves no pixel is refused with the least size that would do."""
    with pytest.raises(SpecError, match=f"image_size {size} leaves no pixel after maxpool2; use 7"):
        flaxnets.spec("conv_net", image_size=size)


def test_dimensions():
    """There is no network for four dimensions."""
    with pytest.raises(SpecError, match="spatial_dims 4 is not one of 1, 2, 3"):
        flaxnets.spec("conv_net", spatial_dims=4)
