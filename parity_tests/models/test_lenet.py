"""LeNet: weights of the seed's own class load into both twins; every size is derived."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)

import flaxnets
from flaxnets import bridge
from flaxnets.specs import SpecError


class SeedLeNet(torch.nn.Module):
    """The seed's class, which imports `torch.functional` for `torch.nn.functional`."""

    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 6, 5)
        self.conv2 = torch.nn.Conv2d(6, 16, 3)
        self.fc1 = torch.nn.Linear(16 * 6 * 6, 120)
        self.fc2 = torch.nn.Linear(120, 84)
        self.fc3 = torch.nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(-1, self.num_flat_features(x))
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)

    def num_flat_features(self, x):
        num_features = 1
        for size in x.size()[1:]:
            num_features *= size
        return num_features


def test_seed_checkpoint():
    """The seed's class and both twins give the same logits from the same weights."""
    seed = SeedLeNet()
    image = torch.randn(4, 1, 32, 32)
    twin, flax = flaxnets.create("lenet", "torch"), flaxnets.create("lenet")
    twin.load_state_dict(seed.state_dict())
    bridge.load_state_dict(flax, seed.state_dict())
    expected = seed(image).detach().numpy()
    np.testing.assert_array_equal(twin(image).detach().numpy(), expected)
    np.testing.assert_allclose(
        flax(jnp.asarray(image.permute(0, 2, 3, 1).numpy())), expected, rtol=1e-4, atol=1e-6
    )


def test_exercise():
    """The exercise's sizes: 9 and 25 features, kernels 3 and 4, then 540, 54 and 10."""
    shapes = {
        k: v.shape
        for k, v in bridge.state_dict(flaxnets.create("lenet", variant="exercise")).items()
    }
    assert shapes["conv1.weight"] == (9, 1, 3, 3)
    assert shapes["conv2.weight"] == (25, 9, 4, 4)
    assert shapes["fc1.weight"] == (540, 25 * 6 * 6)
    assert shapes["fc3.weight"] == (10, 54)


@pytest.mark.parametrize("size", [12, 13, 27, 64])
def test_sizes_are_derived(size):
    """Any image that leaves a pixel will do."""
    spec = flaxnets.spec("lenet", image_size=size)
    (eaten,) = spec.inputs(2)
    assert flaxnets.build(spec)(jnp.zeros(eaten.shape)).shape == (2, 10)


def test_image_too_small():
    """An image that leaves no pixel is refused with the least size that would do."""
    with pytest.raises(SpecError, match="image_size 11 leaves no pixel after pool2; use 12"):
        flaxnets.spec("lenet", image_size=11)
