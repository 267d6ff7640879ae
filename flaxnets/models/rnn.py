"""Recurrent network over a sequence: Elman 1990; Hochreiter, Schmidhuber 1997; Cho et al. 2014.

Axes: b batch, t time, f features, o outputs.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from flaxnets import layers
from flaxnets.specs.rnn import RNNSpec

CELLS = {"rnn": layers.RNN, "lstm": layers.LSTM, "gru": layers.GRU}


class RNN(nnx.Module):
    """Stacked recurrent layers and a dense layer on the last output, or on every one.

    >>> RNN(RNNSpec(), rngs=nnx.Rngs(0))(jnp.ones((8, 20, 10))).shape
    (8, 5)
    """

    def __init__(self, spec: RNNSpec, *, rngs: nnx.Rngs) -> None:
        self.output = spec.output
        self.rnn = CELLS[spec.cell](
            spec.input_size,
            spec.hidden_size,
            spec.num_layers,
            batch_first=True,
            dropout=spec.dropout,
            bidirectional=spec.bidirectional,
            rngs=rngs,
        )
        width = spec.hidden_size * (1 + spec.bidirectional)
        self.fc = layers.Linear(width, spec.output_size, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b t f"],
        lengths: Int[Array, " b"] | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b o"] | Float[Array, "b t o"]:
        out, _ = self.rnn(x, lengths=lengths, rngs=rngs)
        if self.output == "sequence":
            return self.fc(out)
        return self.fc(out[:, -1] if lengths is None else out[jnp.arange(len(x)), lengths - 1])
