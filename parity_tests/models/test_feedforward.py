"""FeedForward: weights of the seed's own class load into both twins."""

import jax.numpy as jnp
import numpy as np
import torch

import flaxnets
from flaxnets import bridge


class MyModel(torch.nn.Module):
    """The seed's class; its softmax runs over the classes, which it leaves open."""

    def __init__(self):
        super().__init__()
        self.linear1 = torch.nn.Linear(100, 200)
        self.activation = torch.nn.ReLU()
        self.linear2 = torch.nn.Linear(200, 10)
        self.softmax = torch.nn.Softmax(dim=1)

    def forward(self, x):
        return self.softmax(self.linear2(self.activation(self.linear1(x))))


def test_seed_checkpoint():
    """The seed's class and both twins give the same probabilities from the same weights."""
    seed = MyModel()
    x = torch.randn(16, 100)
    twin, flax = flaxnets.create("feedforward", "torch"), flaxnets.create("feedforward")
    twin.load_state_dict(seed.state_dict())
    bridge.load_state_dict(flax, seed.state_dict())
    expected = seed(x).detach().numpy()
    np.testing.assert_array_equal(twin(x).detach().numpy(), expected)
    np.testing.assert_allclose(flax(jnp.asarray(x.numpy())), expected, rtol=1e-5, atol=1e-7)
