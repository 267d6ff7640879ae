"""Transformer that translates tokens: Vaswani et al. (2017), arXiv 1706.03762.

Names are those of PyTorch's tutorial on translation. Axes: b batch, s source, t target,
e embedding, l layers of the decoder, c keys and values, h heads, d features of a head, k target
vocabulary.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from flaxnets.layers import (
    Embedding,
    Linear,
    SinusoidalPositionalEncoding,
    TransformerDecoderLayer,
    attend,
    decoding,
)
from flaxnets.layers.init import xavier_uniform
from flaxnets.layers.shape import lifted
from flaxnets.models.transformer import Transformer
from flaxnets.specs import END, PAD, START
from flaxnets.specs.seq2seq_transformer import Seq2SeqTransformerSpec


class Memory(NamedTuple):
    """What each layer of the decoder looks at in the source, and where there is anything."""

    keys_values: Float[Array, "b l c s h d"]
    present: Bool[Array, "b s"]


class TokenEmbedding(nnx.Module):
    """Embeddings, scaled up so that positions do not outweigh them."""

    def __init__(self, vocab_size: int, emb_size: int, *, rngs: nnx.Rngs) -> None:
        self.embedding = Embedding(vocab_size, emb_size, rngs=rngs)
        self.emb_size = emb_size

    def __call__(self, tokens: Int[Array, "b t"]) -> Float[Array, "b t e"]:
        return self.embedding(tokens) * math.sqrt(self.emb_size)


class Seq2SeqTransformer(nnx.Module):
    """Source tokens and target tokens to logits of the token behind each of the latter.

    PAD is not looked at. In training the right targets are given (teacher forcing); without them
    `greedy` and `beam` write their own, in evaluation mode, and compute each key and value once.
    All matrices start Xavier-uniform, as in the tutorial.

    Raises:
        ValueError: outside `jax.jit`, a token that is out of range; a source, target or
            `max_length` that is longer than the positions; a `max_length` or `beam_size` below 1;
            a call in training without `rngs`.

    >>> model = Seq2SeqTransformer(Seq2SeqTransformerSpec(), rngs=nnx.Rngs(0))
    >>> source = jnp.array([[5, 6, 7], [8, 9, PAD]])
    >>> model(source, jnp.array([[START, 5], [START, 6]])).shape, model.greedy(source).shape
    ((2, 2, 20), (2, 12))
    """

    def __init__(self, spec: Seq2SeqTransformerSpec, *, rngs: nnx.Rngs) -> None:
        self.src_tok_emb = TokenEmbedding(spec.source_vocab_size, spec.emb_size, rngs=rngs)
        self.tgt_tok_emb = TokenEmbedding(spec.target_vocab_size, spec.emb_size, rngs=rngs)
        self.positional_encoding = SinusoidalPositionalEncoding(
            spec.emb_size, spec.max_positions, spec.dropout
        )
        self.transformer = Transformer(spec.transformer_spec, rngs=rngs)
        self.generator = Linear(spec.emb_size, spec.target_vocab_size, rngs=rngs)
        self.max_length = spec.max_length
        init = xavier_uniform()
        for _, weight in nnx.to_flat_state(nnx.state(self, nnx.Param)):
            if weight.ndim > 1:
                weight.set_value(init(rngs.params(), weight.shape, weight.dtype))

    def __call__(
        self,
        source: Int[Array, "b s"],
        target: Int[Array, "b t"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b t k"]:
        src = self.positional_encoding(self.src_tok_emb(source), rngs=rngs)
        tgt = self.positional_encoding(self.tgt_tok_emb(target), rngs=rngs)
        hidden = self.transformer(
            src,
            tgt,
            tgt_mask=~jnp.tri(target.shape[1], dtype=bool),
            src_key_padding_mask=source == PAD,
            tgt_key_padding_mask=target == PAD,
            memory_key_padding_mask=source == PAD,
            rngs=rngs,
        )
        return self.generator(hidden)

    def encode(self, source: Int[Array, "b s"]) -> Memory:
        """Keys and values of the source for every layer of the decoder, in evaluation mode."""
        src = self.positional_encoding(self.src_tok_emb(source))
        memory = self.transformer.encoder(src, src_key_padding_mask=source == PAD)
        decoder: Any = self.transformer.decoder
        keys_values = [_projected(memory, each.multihead_attn, "kv") for each in decoder.layers]
        return Memory(jnp.stack(keys_values, axis=1), source != PAD)

    def cache(self, memory: Memory, length: int) -> Float[Array, "b l c t h d"]:
        """Room for the keys and values of a target's tokens, up to a length."""
        batch, layers, both, _, *head = memory.keys_values.shape
        shape = (batch, layers, both, length, *head)
        return jnp.zeros(shape, memory.keys_values.dtype)

    def step(
        self,
        tokens: Int[Array, " b"],
        position: Int[Array, ""] | int,
        cache: Float[Array, "b l c t h d"],
        memory: Memory,
    ) -> tuple[Float[Array, "b k"], Float[Array, "b l c t h d"]]:
        """What the call gives for the last of the target's tokens, from it and what is cached.

        Args:
            tokens: the last ones.
            position: how many came before them.
            cache: keys and values of those.
            memory: of the source.

        Returns:
            Logits, and the cache with the tokens' own keys and values.
        """
        embedded = self.tgt_tok_emb(tokens[:, None])
        room = jnp.zeros((cache.shape[3], embedded.shape[-1]), embedded.dtype)
        x = embedded + lifted(self.positional_encoding(room)[position], 3)
        known = (jnp.arange(cache.shape[3]) <= position)[None, None, None]
        present = memory.present[:, None, None]
        decoder: Any = self.transformer.decoder
        for index, layer in enumerate(decoder.layers):
            keys_values = _projected(x, layer.self_attn, "kv")[:, :, 0]
            cache = cache.at[:, index, :, position].set(keys_values)
            x = layer.norm1(x + _attended(x, layer.self_attn, cache[:, index], known))
            others = memory.keys_values[:, index]
            x = layer.norm2(x + _attended(x, layer.multihead_attn, others, present))
            x = layer.norm3(x + _feedforward(x, layer))
        return self.generator(decoder.norm(x))[:, 0], cache

    def greedy(self, source: Int[Array, "b s"], max_length: int | None = None) -> Int[Array, "b t"]:
        """The likeliest token, again and again.

        Args:
            source: tokens.
            max_length: t, of the result; None for the spec's.

        Returns:
            Tokens with END behind the last and PAD behind that.
        """
        return decoding.greedy(self.step, *self._start(source, max_length), end=END, padding=PAD)

    def beam(
        self,
        source: Int[Array, "b s"],
        beam_size: int = 4,
        max_length: int | None = None,
        length_penalty: float = 0.6,
    ) -> tuple[Int[Array, "b t"], Float[Array, " b"]]:
        """The best of several hypotheses, and its score; see `layers.decoding.beam`."""
        return decoding.beam(
            self.step,
            *self._start(source, max_length),
            end=END,
            padding=PAD,
            beam_size=beam_size,
            length_penalty=length_penalty,
        )

    def _start(self, source: Array, max_length: int | None) -> tuple[Array, Memory, Array, int]:
        length = self.max_length if max_length is None else max_length
        most = self.positional_encoding.max_len
        if not 1 <= length <= most:
            raise ValueError(f"max_length {length} is out of range; use 1 to {most}, the positions")
        memory = self.encode(source)
        first = jnp.full(len(source), START, source.dtype)
        return self.cache(memory, length), memory, first, length


def _projected(x: Float[Array, "b t e"], attention: Any, parts: str) -> Float[Array, "b c t h d"]:
    """Queries, keys or values, those of "qkv" that are named, for every head."""
    matrices, biases = (
        dict(zip("qkv", jnp.split(weight[...], 3), strict=True))
        for weight in (attention.in_proj_weight, attention.in_proj_bias)
    )
    y = [x @ matrices[part].T + lifted(biases[part], 3) for part in parts]
    return rearrange(jnp.stack(y, 1), "b c t (h d) -> b c t h d", h=attention.num_heads)


def _attended(
    x: Float[Array, "b 1 e"],
    attention: Any,
    keys_values: Float[Array, "b c s h d"],
    mask: Bool[Array, "#b 1 1 s"],
) -> Float[Array, "b 1 e"]:
    query = _projected(x, attention, "q")[:, 0]
    found = attend(query, keys_values[:, 0], keys_values[:, 1], mask)
    return attention.out_proj(rearrange(found, "b t h d -> b t (h d)"))


def _feedforward(x: Float[Array, "b 1 e"], layer: TransformerDecoderLayer) -> Float[Array, "b 1 e"]:
    return layer.linear2(layer.activation(layer.linear1(x)))
