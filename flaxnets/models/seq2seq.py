"""GRU encoder and decoder with additive attention: Bahdanau et al. (2014), arXiv 1409.0473.

Names are those of PyTorch's tutorial. Axes: b batch, s source, t target, e embedding, h hidden,
a annotation (h times directions), l layers, k target vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from flaxnets.layers import GRU, Dropout, Embedding, Linear, decoding
from flaxnets.specs import END, PAD, START
from flaxnets.specs.seq2seq import Seq2SeqSpec


class Memory(NamedTuple):
    """What the decoder looks at: annotations, their keys, and where there are any."""

    annotations: Float[Array, "b s a"]
    keys: Float[Array, "b s h"]
    present: Bool[Array, "b s"]


class Encoder(nnx.Module):
    """A GRU over embeddings, up to the end of each source."""

    def __init__(self, spec: Seq2SeqSpec, *, rngs: nnx.Rngs) -> None:
        self.embedding = Embedding(spec.source_vocab_size, spec.embedding_dim, rngs=rngs)
        self.dropout = Dropout(spec.dropout)
        self.gru = GRU(
            spec.embedding_dim,
            spec.hidden_size,
            spec.num_layers,
            batch_first=True,
            bidirectional=spec.bidirectional,
            rngs=rngs,
        )
        both = 2 * spec.hidden_size
        self.fc = Linear(both, spec.hidden_size, rngs=rngs) if spec.bidirectional else None

    def __call__(
        self, source: Int[Array, "b s"], *, rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "b s a"], Float[Array, "l b h"]]:
        """Annotations, and the states that the decoder starts from."""
        embedded = self.dropout(self.embedding(source), rngs=rngs)
        annotations, hidden = self.gru(embedded, lengths=(source != PAD).sum(-1))
        if self.fc is not None:
            both = rearrange(hidden, "(l directions) b h -> l b (directions h)", directions=2)
            hidden = jnp.tanh(self.fc(both))
        return annotations, hidden


class BahdanauAttention(nnx.Module):
    """Softmax of v tanh(W state + U annotation), which weighs the annotations.

    The tutorial's bias of v is left out: it moves all scores alike, which softmax does not see.
    """

    def __init__(self, annotation_size: int, hidden_size: int, *, rngs: nnx.Rngs) -> None:
        self.Wa = Linear(hidden_size, hidden_size, rngs=rngs)
        self.Ua = Linear(annotation_size, hidden_size, rngs=rngs)
        self.Va = Linear(hidden_size, 1, bias=False, rngs=rngs)

    def __call__(
        self, query: Float[Array, "b h"], memory: Memory
    ) -> tuple[Float[Array, "b a"], Float[Array, "b s"]]:
        """The weighted sum and the weights."""
        scores = self.Va(jnp.tanh(self.Wa(query)[:, None] + memory.keys))[..., 0]
        # In float32 at least: the sum of a row's exponentials would lose most of bfloat16's digits.
        wide = scores.astype(np.promote_types(scores.dtype, np.float32))
        weights = jax.nn.softmax(jnp.where(memory.present, wide, -jnp.inf)).astype(scores.dtype)
        return jnp.einsum("bs,bsa->ba", weights, memory.annotations), weights


class Decoder(nnx.Module):
    """A GRU over embeddings, each beside what attention finds for it."""

    def __init__(self, spec: Seq2SeqSpec, *, rngs: nnx.Rngs) -> None:
        annotation_size = spec.hidden_size * (2 if spec.bidirectional else 1)
        self.embedding = Embedding(spec.target_vocab_size, spec.embedding_dim, rngs=rngs)
        self.dropout = Dropout(spec.dropout)
        self.attention = BahdanauAttention(annotation_size, spec.hidden_size, rngs=rngs)
        self.gru = GRU(
            spec.embedding_dim + annotation_size,
            spec.hidden_size,
            spec.num_layers,
            batch_first=True,
            rngs=rngs,
        )
        self.out = Linear(spec.hidden_size, spec.target_vocab_size, rngs=rngs)

    def step(
        self, embedded: Float[Array, "b e"], hidden: Float[Array, "l b h"], memory: Memory
    ) -> tuple[Float[Array, "b h"], Float[Array, "l b h"]]:
        """One token and the states -> output, next states."""
        context, _ = self.attention(hidden[-1], memory)
        inputs = jnp.concatenate([embedded, context], axis=-1)
        output, hidden = self.gru(inputs[:, None], hidden)
        return output[:, 0], hidden

    def __call__(
        self,
        target: Int[Array, "b t"],
        hidden: Float[Array, "l b h"],
        memory: Memory,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b t k"]:
        embedded = self.dropout(self.embedding(target), rngs=rngs)

        def step(hidden, embedded):
            output, hidden = self.step(embedded, hidden, memory)
            return hidden, output

        _, outputs = jax.lax.scan(step, hidden, rearrange(embedded, "b t e -> t b e"))
        return self.out(rearrange(outputs, "t b h -> b t h"))


class Seq2Seq(nnx.Module):
    """Source tokens and target tokens to logits of the token behind each of the latter.

    A source ends at its first PAD. In training the right targets are given (teacher forcing);
    without them `greedy` and `beam` write their own, in evaluation mode.

    Raises:
        ValueError: outside `jax.jit`, a token that is out of range or a source of PAD alone; a
            `max_length` or `beam_size` below 1.

    >>> model = Seq2Seq(Seq2SeqSpec(), rngs=nnx.Rngs(0))
    >>> source = jnp.array([[5, 6, 7], [8, 9, PAD]])
    >>> model(source, jnp.array([[START, 5], [START, 6]])).shape, model.greedy(source).shape
    ((2, 2, 20), (2, 12))
    """

    def __init__(self, spec: Seq2SeqSpec, *, rngs: nnx.Rngs) -> None:
        self.encoder = Encoder(spec, rngs=rngs)
        self.decoder = Decoder(spec, rngs=rngs)
        self.max_length = spec.max_length

    def encode(
        self, source: Int[Array, "b s"], *, rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "l b h"], Memory]:
        """What the decoder starts from and what it looks at."""
        annotations, hidden = self.encoder(source, rngs=rngs)
        return hidden, Memory(annotations, self.decoder.attention.Ua(annotations), source != PAD)

    def __call__(
        self,
        source: Int[Array, "b s"],
        target: Int[Array, "b t"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b t k"]:
        return self.decoder(target, *self.encode(source, rngs=rngs), rngs=rngs)

    def step(
        self,
        tokens: Int[Array, " b"],
        position: Int[Array, ""],
        hidden: Float[Array, "b l h"],
        memory: Memory,
    ) -> tuple[Float[Array, "b k"], Float[Array, "b l h"]]:
        """Logits behind the last tokens and the next states, as `layers.decoding` wants them."""
        states = rearrange(hidden, "b l h -> l b h")
        output, states = self.decoder.step(self.decoder.embedding(tokens), states, memory)
        return self.decoder.out(output), rearrange(states, "l b h -> b l h")

    def greedy(self, source: Int[Array, "b s"], max_length: int | None = None) -> Int[Array, "b t"]:
        """The likeliest token, again and again.

        Args:
            source: tokens.
            max_length: of the result; None for the spec's.

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
        hidden, memory = self.encode(source)
        first = jnp.full(len(source), START, source.dtype)
        length = self.max_length if max_length is None else max_length
        return rearrange(hidden, "l b h -> b l h"), memory, first, length
