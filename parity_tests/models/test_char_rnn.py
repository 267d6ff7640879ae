"""CharRNN: the seed's class, character by character and whole words at once."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import flaxnets
from flaxnets import bridge


class SeedRNN(torch.nn.Module):
    """As in the seed, with its sizes; its softmax over the only other axis."""

    def __init__(self, n_classes):
        super().__init__()
        self.hid_fc = torch.nn.Linear(185, 128)
        self.out_fc = torch.nn.Linear(185, n_classes)
        self.softmax = torch.nn.LogSoftmax(dim=1)

    def forward(self, inputs, hidden):
        """One character and the state (1, 128) -> log-probabilities and the next state."""
        combined = torch.cat([inputs.view(1, -1), hidden], dim=1)
        return self.softmax(self.out_fc(combined)), self.hid_fc(combined)


@pytest.fixture
def models():
    """The seed's class and both twins with its weights, which load strictly."""
    torch.manual_seed(0)
    seed = SeedRNN(18)
    flax = flaxnets.create("char_rnn", n_classes=18)
    twin = flaxnets.create("char_rnn", "torch", n_classes=18)
    bridge.load_state_dict(flax, seed.state_dict())
    twin.load_state_dict(seed.state_dict())
    return seed, flax, twin


def test_step(models):
    """One character: the seed's own numbers."""
    seed, flax, twin = models
    character, hidden = torch.eye(57)[[3]], torch.randn(1, 128)
    wanted = [part.detach().numpy() for part in seed(character, hidden)]
    theirs = twin.step(character, hidden)
    ours = flax.step(jnp.asarray(character.numpy()), jnp.asarray(hidden.numpy()))
    for index in range(2):
        np.testing.assert_array_equal(theirs[index].detach(), wanted[index])
        np.testing.assert_allclose(ours[index], wanted[index], rtol=1e-5, atol=1e-6)


def test_words(models):
    """Whole padded words: what the seed's loop gives for each alone at its last character."""
    seed, flax, twin = models
    tokens = np.array([[3, 14, 15, 9], [26, 5, 0, 0], [35, 0, 0, 0]])
    lengths = np.array([4, 2, 1])
    words = np.eye(57, dtype=np.float32)[tokens]
    ours = flax(jnp.asarray(words), jnp.asarray(lengths))
    theirs = twin(torch.tensor(words), torch.tensor(lengths)).detach()
    for row, length in enumerate(lengths):
        hidden = torch.zeros(1, 128)
        for character in torch.tensor(words[row, :length]):
            wanted, hidden = seed(character, hidden)
        np.testing.assert_allclose(ours[row], wanted[0].detach(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(theirs[row], wanted[0].detach(), rtol=1e-5, atol=1e-6)


def test_without_lengths(models):
    """Words that fill the array need no lengths."""
    _, flax, twin = models
    words = np.eye(57, dtype=np.float32)[np.array([[1, 2, 3]])]
    full = flax(jnp.asarray(words), jnp.array([3]))
    np.testing.assert_array_equal(flax(jnp.asarray(words)), full)
    np.testing.assert_allclose(twin(torch.tensor(words)).detach(), full, rtol=1e-5, atol=1e-6)
