"""Seq2Seq: weights of the classes of PyTorch's tutorial load and give what they give."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import flaxnets
from flaxnets import bridge

SPEC = flaxnets.spec("seq2seq", "tiny")


class EncoderRNN(torch.nn.Module):
    """The tutorial's encoder (translation with a sequence to sequence network and attention)."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.embedding = torch.nn.Embedding(input_size, hidden_size)
        self.gru = torch.nn.GRU(hidden_size, hidden_size, batch_first=True)

    def forward(self, tokens):
        """(b, s) -> outputs (b, s, h), last state (1, b, h)."""
        return self.gru(self.embedding(tokens))


class BahdanauAttention(torch.nn.Module):
    """The tutorial's attention, whose last layer has a bias."""

    def __init__(self, hidden_size):
        super().__init__()
        self.Wa = torch.nn.Linear(hidden_size, hidden_size)
        self.Ua = torch.nn.Linear(hidden_size, hidden_size)
        self.Va = torch.nn.Linear(hidden_size, 1)

    def forward(self, query, keys):
        """Query (b, 1, h) and keys (b, s, h) -> context (b, 1, h)."""
        scores = self.Va(torch.tanh(self.Wa(query) + self.Ua(keys)))
        return torch.bmm(scores.squeeze(2).unsqueeze(1).softmax(-1), keys)


class AttnDecoderRNN(torch.nn.Module):
    """The tutorial's decoder, given the right target."""

    def __init__(self, hidden_size, output_size):
        super().__init__()
        self.embedding = torch.nn.Embedding(output_size, hidden_size)
        self.attention = BahdanauAttention(hidden_size)
        self.gru = torch.nn.GRU(2 * hidden_size, hidden_size, batch_first=True)
        self.out = torch.nn.Linear(hidden_size, output_size)

    def forward(self, encoder_outputs, hidden, target):
        """Logits (b, t, k), a token at a time."""
        logits = []
        for token in target.split(1, dim=1):
            context = self.attention(hidden.permute(1, 0, 2), encoder_outputs)
            inputs = torch.cat((self.embedding(token), context), dim=2)
            output, hidden = self.gru(inputs, hidden)
            logits.append(self.out(output))
        return torch.cat(logits, dim=1)


def test_tutorial():
    """Its weights load strictly, but for the bias that softmax does not see, and give the same."""
    torch.manual_seed(0)
    encoder, decoder = EncoderRNN(11, 6), AttnDecoderRNN(6, 7)
    source, target = torch.randint(3, 11, (3, 5)), torch.randint(1, 7, (3, 4))
    with torch.no_grad():
        expected = decoder(*encoder(source), target)
    state = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    state |= {f"decoder.{name}": value for name, value in decoder.state_dict().items()}
    del state["decoder.attention.Va.bias"]
    spec = SPEC.replace(
        embedding_dim=6, hidden_size=6, num_layers=1, bidirectional=False, dropout=0.0
    )
    flax, twin = flaxnets.build(spec), flaxnets.build(spec, "torch")
    twin.load_state_dict(state, strict=True)
    bridge.load_state_dict(flax, state)
    np.testing.assert_allclose(twin(source, target).detach(), expected, rtol=0, atol=1e-6)
    ours = flax(jnp.asarray(source.numpy()), jnp.asarray(target.numpy()))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_attention_ends():
    """No weight falls on padding, in either twin, and those of a source add up to 1."""
    flax, twin = flaxnets.build(SPEC.replace(dropout=0.0)), flaxnets.build(SPEC, "torch").eval()
    twin.load_state_dict({k: torch.tensor(v) for k, v in bridge.state_dict(flax).items()})
    source = np.array([[5, 6, 7, 8], [9, 10, 0, 0]])
    hidden, memory = flax.encode(jnp.asarray(source))
    _, ours = flax.decoder.attention(hidden[-1], memory)
    with torch.no_grad():
        states, annotations = twin.encode(torch.tensor(source))
        _, theirs = twin.decoder.attention(states[-1], annotations)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(ours) == 0, source == 0)
    np.testing.assert_allclose(ours.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("target_vocab_size", 2, "seq2seq: target_vocab_size 2 is too small; use 3 or more"),
        ("hidden_size", 0, "seq2seq: hidden_size 0 is too small; use 1 or more"),
        ("dropout", 1.5, "seq2seq: dropout 1.5 is out of range; use 0 to 1"),
    ],
)
def test_wrong(field, value, message):
    """An impossible field is named with its value."""
    with pytest.raises(flaxnets.specs.SpecError, match=message):
        SPEC.replace(**{field: value})
