"""MLP: weights of the seed's own class load into both twins, which take images and rows."""

import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)

import flaxnets
from flaxnets import bridge


class SeedMLP(torch.nn.Module):
    """The seed's class."""

    def __init__(self):
        super().__init__()
        self.fc1 = torch.nn.Linear(in_features=28 * 28, out_features=500)
        self.fc2 = torch.nn.Linear(in_features=500, out_features=200)
        self.fc3 = torch.nn.Linear(in_features=200, out_features=100)
        self.out = torch.nn.Linear(in_features=100, out_features=10)

    def forward(self, t):
        t = t.view(-1, 28 * 28)
        t = F.relu(self.fc1(t))
        t = F.relu(self.fc2(t))
        t = F.relu(self.fc3(t))
        return self.out(t)


def test_seed_checkpoint():
    """The seed's class and both twins give the same logits from the same weights."""
    seed = SeedMLP()
    image = torch.randn(4, 1, 28, 28)
    twin, flax = flaxnets.create("mlp", "torch"), flaxnets.create("mlp")
    twin.load_state_dict(seed.state_dict())
    bridge.load_state_dict(flax, seed.state_dict())
    expected = seed(image).detach().numpy()
    np.testing.assert_array_equal(twin(image).detach().numpy(), expected)
    np.testing.assert_allclose(
        flax(jnp.asarray(image.permute(0, 2, 3, 1).numpy())), expected, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        flax(jnp.asarray(image.reshape(4, -1).numpy())), expected, rtol=1e-4, atol=1e-6
    )
