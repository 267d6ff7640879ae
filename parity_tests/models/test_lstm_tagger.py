"""LSTMTagger: the seed's class, one sentence and many, and words that do not exist."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)

import flaxnets
from flaxnets import bridge

SIZES = {"embedding_dim": 6, "hidden_dim": 7, "vocab_size": 9, "tagset_size": 3}
SENTENCE = [0, 1, 2, 3, 8]


class SeedTagger(torch.nn.Module):
    """As in the seed, which reads one sentence at a time."""

    def __init__(self, embedding_dim, hidden_dim, vocab_size, tagset_size):
        super().__init__()
        self.word_embeddings = torch.nn.Embedding(vocab_size, embedding_dim)
        self.lstm = torch.nn.LSTM(embedding_dim, hidden_dim)
        self.hidden2tag = torch.nn.Linear(hidden_dim, tagset_size)

    def forward(self, sentence):
        """Words (t,) -> log-probabilities (t, k)."""
        embeds = self.word_embeddings(sentence)
        lstm_out, _ = self.lstm(embeds.view(len(sentence), 1, -1))
        return F.log_softmax(self.hidden2tag(lstm_out.view(len(sentence), -1)), dim=1)


@pytest.fixture
def models():
    """The seed's class and both twins with its weights, which load strictly."""
    torch.manual_seed(0)
    seed = SeedTagger(**SIZES)
    flax = flaxnets.create("lstm_tagger", **SIZES)
    twin = flaxnets.create("lstm_tagger", "torch", **SIZES)
    bridge.load_state_dict(flax, seed.state_dict())
    twin.load_state_dict(seed.state_dict())
    return seed, flax, twin


def test_seed_class(models):
    """One sentence gives the seed's own scores."""
    seed, flax, twin = models
    wanted = seed(torch.tensor(SENTENCE)).detach()
    np.testing.assert_array_equal(twin(torch.tensor(SENTENCE)).detach(), wanted)
    np.testing.assert_allclose(flax(jnp.array(SENTENCE)), wanted, rtol=1e-5, atol=1e-6)


def test_batch(models):
    """A padded batch with lengths gives every sentence what it gets alone."""
    seed, flax, twin = models
    batch = np.array([SENTENCE, [4, 5, 7, 0, 0], [6, 0, 0, 0, 0]])
    lengths = np.array([5, 3, 1])
    ours = flax(jnp.asarray(batch), jnp.asarray(lengths))
    theirs = twin(torch.tensor(batch), torch.tensor(lengths)).detach()
    for row, length in enumerate(lengths):
        alone = seed(torch.tensor(batch[row, :length])).detach()
        np.testing.assert_allclose(ours[row, :length], alone, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(theirs[row, :length], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("sentence", "lengths", "message"),
    [
        ([[0, 9]], [2], "index 9 is not one of 9 rows"),
        ([[0, 1]], [3], "lengths"),
        ([[0, 1]], [0], "lengths"),
        ([[0, 1]], [1, 1], "lengths"),
    ],
)
def test_wrong(sentence, lengths, message):
    """A word out of range and an impossible length are named."""
    flax = flaxnets.create("lstm_tagger", **SIZES)
    with pytest.raises(ValueError, match=message) as error:
        flax(jnp.array(sentence), jnp.array(lengths))
    assert "\n" not in str(error.value)
