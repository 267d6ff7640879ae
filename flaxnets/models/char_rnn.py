"""Character network that names a word's class, one linear hidden state (PyTorch's tutorial).

Axes: b batch, t characters, f one-hot characters, h hidden, k classes.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from flaxnets.layers import Linear, LogSoftmax
from flaxnets.specs.char_rnn import CharRNNSpec


class CharRNN(nnx.Module):
    """Two dense layers on character and hidden state: the next state, and the class.

    >>> CharRNN(CharRNNSpec(), rngs=nnx.Rngs(0))(jnp.ones((2, 4, 57))).shape
    (2, 10)
    """

    def __init__(self, spec: CharRNNSpec, *, rngs: nnx.Rngs) -> None:
        self.hidden_size = spec.hidden_size
        width = spec.input_size + spec.hidden_size
        self.hid_fc = Linear(width, spec.hidden_size, rngs=rngs)
        self.out_fc = Linear(width, spec.n_classes, rngs=rngs)
        self.softmax = LogSoftmax(-1)

    def step(
        self, inputs: Float[Array, "b f"], hidden: Float[Array, "b h"]
    ) -> tuple[Float[Array, "b k"], Float[Array, "b h"]]:
        """One character and a state -> log-probabilities, next state."""
        combined = jnp.concatenate([inputs, hidden], axis=1)
        return self.softmax(self.out_fc(combined)), self.hid_fc(combined)

    def __call__(
        self, words: Float[Array, "b t f"], lengths: Int[Array, " b"] | None = None
    ) -> Float[Array, "b k"]:
        start = jnp.zeros((len(words), self.hidden_size), words.dtype)

        def step(hidden, inputs):
            output, hidden = self.step(inputs, hidden)
            return hidden, output

        _, outputs = jax.lax.scan(step, start, words.swapaxes(0, 1))
        last = words.shape[1] if lengths is None else lengths
        return outputs[last - 1, jnp.arange(len(words))]
