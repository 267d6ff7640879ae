"""Seq2SeqTransformer: weights of PyTorch's tutorial load; cached decoding is the uncached one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flaxnets
from flaxnets import bridge
from flaxnets.parity.pair import Pair

SPEC = flaxnets.spec("seq2seq_transformer", "tiny")


class TutorialEmbedding(torch.nn.Module):
    """Tokens (t, b) -> (t, b, e)."""

    def __init__(self, vocab_size, emb_size):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocab_size, emb_size)

    def forward(self, tokens):
        """Scaled as in the tutorial."""
        return self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)


class TutorialTransformer(torch.nn.Module):
    """As in the tutorial (language translation with nn.Transformer): time first, masks given."""

    def __init__(self, spec):
        super().__init__()
        self.transformer = torch.nn.Transformer(
            spec.emb_size,
            spec.nhead,
            spec.num_encoder_layers,
            spec.num_decoder_layers,
            spec.dim_feedforward,
            spec.dropout,
        )
        self.generator = torch.nn.Linear(spec.emb_size, spec.target_vocab_size)
        self.src_tok_emb = TutorialEmbedding(spec.source_vocab_size, spec.emb_size)
        self.tgt_tok_emb = TutorialEmbedding(spec.target_vocab_size, spec.emb_size)
        self.positional_encoding = torch.nn.Module()
        rates = torch.exp(-torch.arange(0, spec.emb_size, 2) * math.log(10000) / spec.emb_size)
        angles = torch.arange(10).reshape(10, 1) * rates
        table = torch.stack([angles.sin(), angles.cos()], dim=-1).reshape(10, 1, -1)
        self.positional_encoding.register_buffer("pos_embedding", table)

    def forward(self, src, tgt):
        """(s, b), (t, b) -> (t, b, k)."""
        table = self.positional_encoding.pos_embedding
        causal = torch.ones(len(tgt), len(tgt)).triu(1).bool()
        src_padding, tgt_padding = (src == 0).T, (tgt == 0).T
        hidden = self.transformer(
            self.src_tok_emb(src) + table[: len(src)],
            self.tgt_tok_emb(tgt) + table[: len(tgt)],
            None,
            causal,
            None,
            src_padding,
            tgt_padding,
            src_padding,
        )
        return self.generator(hidden)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")  # as torch makes it
def test_tutorial():
    """Its weights, torch.nn.Transformer's among them, load strictly and give the same."""
    torch.manual_seed(0)
    own = TutorialTransformer(SPEC).eval()
    state = own.state_dict()
    del state["positional_encoding.pos_embedding"]  # which is no weight
    flax, twin = flaxnets.build(SPEC), flaxnets.build(SPEC, "torch").eval()
    twin.load_state_dict(state, strict=True)
    bridge.load_state_dict(flax, state)
    source = torch.tensor([[5, 6, 7, 8, 9], [3, 10, 4, 0, 0]])
    target = torch.tensor([[1, 5, 6, 7], [1, 3, 0, 0]])
    with torch.no_grad():
        expected = own(source.T, target.T).transpose(0, 1)
        np.testing.assert_allclose(twin(source, target), expected, rtol=0, atol=2e-6)
    flax = nnx.view(flax, deterministic=True)
    ours = flax(jnp.asarray(source.numpy()), jnp.asarray(target.numpy()))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)


@pytest.fixture(scope="module")
def pair():
    """Both twins with the same random weights."""
    return Pair(flaxnets.build(SPEC), flaxnets.build(SPEC, "torch"), SPEC.inputs(3))


def test_cache(pair):
    """Token by token with the cache, in float64: the logits of the call without it."""
    with jax.enable_x64(True):
        model, (source, _) = pair.flax_model(), pair.flax_inputs()
        target = jnp.array([[1, 4, 5, 6], [1, 7, 2, 3], [1, 1, 6, 4]])
        expected = model(source, target)
        step, memory = jax.jit(model.step), model.encode(source)
        cache, logits = model.cache(memory, 4), []
        for position in range(4):
            scores, cache = step(target[:, position], position, cache, memory)
            logits.append(scores)
        np.testing.assert_allclose(jnp.stack(logits, 1), expected, rtol=0, atol=1e-10)

        twin, tokens = pair.torch_model(), torch.tensor(np.array(target))
        with torch.no_grad():
            memory = twin.encode(pair.torch_inputs()[0])
            cache = memory[0][..., :0, :]
            for position in range(4):
                scores, cache = twin.step(tokens[:, position], position, cache, memory)
                np.testing.assert_allclose(scores, expected[:, position], rtol=0, atol=1e-10)


def test_too_long(pair):
    """Neither sources nor results go beyond the positions."""
    model, twin = pair.flax_model("float32"), pair.torch_model("float32")
    message = "max_length 11 is out of range; use 1 to 10, the positions"
    with pytest.raises(ValueError, match=message):
        model.greedy(jnp.ones((2, 3), int), 11)
    with pytest.raises(ValueError, match=message):
        twin.greedy(torch.ones(2, 3, dtype=torch.long), 11)
    with pytest.raises(ValueError, match=r"input \(2, 11, 6\) is longer than max_len 10"):
        model.greedy(jnp.ones((2, 11), int))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("nhead", 4, "seq2seq_transformer: emb_size 6 is not a multiple of nhead 4"),
        ("dropout", -0.5, "seq2seq_transformer: dropout -0.5 is out of range; use 0 to 1"),
        ("max_length", 11, "max_length 11 is longer than max_positions 10"),
        ("source_vocab_size", 1, "source_vocab_size 1 is too small; use 3 or more"),
    ],
)
def test_wrong(field, value, message):
    """An impossible field is named with its value."""
    with pytest.raises(flaxnets.specs.SpecError, match=message):
        SPEC.replace(**{field: value})
