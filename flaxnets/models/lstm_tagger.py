"""LSTM that gives every word of a sentence a tag (PyTorch's tutorial; Graves et al. 2012).

Axes: b batch, t words, k tags.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from flaxnets.layers import LSTM, Embedding, Linear
from flaxnets.specs.lstm_tagger import LSTMTaggerSpec


class LSTMTagger(nnx.Module):
    """Word embeddings, an LSTM from left to right, a dense layer on every step.

    >>> import jax.numpy as jnp
    >>> LSTMTagger(LSTMTaggerSpec(), rngs=nnx.Rngs(0))(jnp.array([5, 3, 8])).shape
    (3, 17)
    """

    def __init__(self, spec: LSTMTaggerSpec, *, rngs: nnx.Rngs) -> None:
        self.word_embeddings = Embedding(spec.vocab_size, spec.embedding_dim, rngs=rngs)
        self.lstm = LSTM(spec.embedding_dim, spec.hidden_dim, batch_first=True, rngs=rngs)
        self.hidden2tag = Linear(spec.hidden_dim, spec.tagset_size, rngs=rngs)

    def __call__(
        self, sentence: Int[Array, "*b t"], lengths: Int[Array, " b"] | None = None
    ) -> Float[Array, "*b t k"]:
        embeds = self.word_embeddings(sentence)
        lstm_out, _ = self.lstm(embeds, lengths=lengths)
        return jax.nn.log_softmax(self.hidden2tag(lstm_out))
