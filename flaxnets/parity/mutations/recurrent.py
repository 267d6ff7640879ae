"""Faults in recurrent layers and in networks made of them."""

import jax
import jax.numpy as jnp

from flaxnets import layers
from flaxnets.layers import recurrence, recurrent
from flaxnets.layers.shape import lifted
from flaxnets.models.char_rnn import CharRNN
from flaxnets.models.rnn import RNN
from flaxnets.parity.mutations.mutation import Mutation, replaced, untraced

TAGGER = "lstm_tagger"
PLAIN = {"bidirectional": False, "dropout": 0.0, "num_layers": 1}


def _weights(change):
    """A recurrent layer that takes its weights changed by `change(name, weight)`."""

    def changed(self, layer, direction):
        held = _held(self, layer, direction)
        return [change(name, w) for name, w in zip(recurrent.KINDS, held, strict=False)]

    return replaced(recurrent._Recurrent, "_weights", changed)


def _order(*gates):
    def change(name, w):
        parts = jnp.split(w, len(gates))
        return jnp.concatenate([parts[gate] for gate in gates])

    return change


def _without(kind):
    return lambda name, w: 0 * w if name == kind else w


def _forget(name, w):
    first = jnp.arange(len(w)) // (len(w) // 4) == 1
    return w + first.astype(w.dtype) if name == "bias_ih" else w


def _reset_first(self, z, weights, state):
    (h,) = state
    size = h.shape[-1]
    hidden = recurrence._matmul(h, weights[0])
    gates = jnp.tanh(z[..., : 2 * size] + hidden[..., : 2 * size]) * 0.5 + 0.5
    reset, update = jnp.split(gates, 2, -1)
    late = recurrence._matmul(reset * h, weights[0][:, 2 * size :])
    late = late + lifted(weights[1], z.ndim)
    new = jnp.tanh(z[..., 2 * size :] + late)
    return (new + update * (h - new),), jnp.concatenate([gates, new, late], -1)


def _update_reversed(self, z, weights, state):
    (h,), saved = _gated(self, z, weights, state)
    return (state[0] + jnp.split(saved, 4, -1)[2] - h,), saved


def _no_slope(self, weights, before, after, saved, grads):
    return (recurrence._matmul(grads[0], weights[0]),), (grads[0],)


def _forgotten(self, weights, before, after, saved, grads):
    (dh, dc), found = _long_short(self, weights, before, after, saved, grads)
    return (dh, 0 * dc), found


def _directions_swapped(self, x, *args, **kwargs):
    output, state = _call(self, x, *args, **kwargs)
    return jnp.concatenate(jnp.split(output, 2, -1)[::-1], -1), state


def _no_lengths(self, x, hx=None, *, lengths=None, rngs=None):
    output, state = _call(self, x, hx, rngs=rngs)
    if lengths is None:
        return output, state
    present = jnp.arange(x.shape[1])[None] < lengths.astype(int)[:, None]
    return jnp.where(present[..., None], output, 0), state


def _last_step(self, x, lengths=None, *, rngs=None):
    out, _ = self.rnn(x, lengths=lengths, rngs=rngs)
    return self.fc(out[:, -1])


def _no_state(self, inputs, hidden):
    return _step(self, inputs, 0 * hidden)


def _kept_share(self, x, rngs):
    if self.deterministic or self.dropout == 0:
        return x
    return layers.Dropout(1 - self.dropout)(x, rngs=rngs)


def _same_key(self, x, rngs):
    if self.deterministic or self.dropout == 0:
        return x
    key = jax.random.fold_in(rngs.dropout.key[...], 0)
    kept = jax.random.bernoulli(key, jnp.float32(1 - self.dropout), x.shape)
    return x * kept.astype(x.dtype) / (1 - self.dropout)


_held, _call = recurrent._Recurrent._weights, recurrent._Recurrent.__call__
_gated, _long_short = recurrence.Gated.forward, recurrence.LongShort.backward
_step, _log_softmax = CharRNN.step, jax.nn.log_softmax

MUTATIONS = (
    Mutation(
        "gates f and g swapped",
        "forward",
        _weights(_order(0, 2, 1, 3)),
        "lstm",
        "gates in the order i, g, f, o",
        TAGGER,
    ),
    Mutation(
        "gates of the GRU in Cho's order, z before r",
        "forward",
        _weights(_order(1, 0, 2)),
        "rnn.layer",
        "gates in the order z, r, n",
        "gru",
    ),
    Mutation(
        "missing hidden bias",
        "forward",
        _weights(_without("bias_hh")),
        "lstm",
        "no hidden bias (bias_hh)",
        TAGGER,
    ),
    Mutation(
        "forget gate's bias raised by 1",
        "intermediates",
        _weights(_forget),
        "lstm",
        "1 added to the forget gate",
        TAGGER,
    ),
    Mutation(
        "reset before the matrix product",
        "forward",
        untraced(recurrence.Gated, "forward", _reset_first),
        "rnn.layer",
        "reset before",
        "gru",
    ),
    Mutation(
        "update gate the other way round",
        "forward",
        untraced(recurrence.Gated, "forward", _update_reversed),
        "rnn.layer",
        "update gate the other way round",
        "gru",
    ),
    Mutation(
        "gradient of tanh left out",
        "gradients",
        untraced(recurrence.Elman, "backward", _no_slope),
        "rnn.layer",
        "gradient of its input 0",
        "elman",
    ),
    Mutation(
        "gradient of the cell state not carried back",
        "gradients",
        untraced(recurrence.LongShort, "backward", _forgotten),
        "rnn.layer",
        "gradient of its input 0",
        "lstm",
    ),
    Mutation(
        "directions interchanged",
        "forward",
        replaced(recurrent._Recurrent, "__call__", _directions_swapped),
        "rnn.layer",
        "directions interchanged",
        "elman",
    ),
    Mutation(
        "lengths ignored",
        "forward",
        replaced(recurrent._Recurrent, "__call__", _no_lengths),
        "rnn",
        "lengths ignored",
        "rnn",
        {"num_layers": 1, "dropout": 0.0},
    ),
    Mutation(
        "last step in place of the last word",
        "forward",
        replaced(RNN, "__call__", _last_step),
        "input of fc",
        "",
        "rnn",
        PLAIN,
    ),
    Mutation(
        "state not carried to the next character",
        "forward",
        replaced(CharRNN, "step", _no_state),
        "input of out_fc",
        "are zero",
        "char_rnn",
    ),
    Mutation(
        "softmax in place of its logarithm",
        "intermediates",
        replaced(layers.LogSoftmax, "__call__", lambda self, x: jax.nn.softmax(x)),
        "softmax",
        "softmax in place of LogSoftmax",
        "char_rnn",
    ),
    Mutation(
        "log-softmax over the words",
        "forward",
        replaced(jax.nn, "log_softmax", lambda x, axis=-1: _log_softmax(x, -2)),
        "output",
        "",
        TAGGER,
    ),
    Mutation(
        "dropout between layers keeps p in place of 1 - p",
        "forward_train",
        replaced(recurrent._Recurrent, "_drop", _kept_share),
        "rnn",
        "",
        "rnn",
    ),
    Mutation(
        "dropout between layers left out",
        "forward_train",
        replaced(recurrent._Recurrent, "_drop", lambda self, x, rngs: x),
        "rnn",
        "draw",
        "rnn",
    ),
    Mutation(
        "one mask for all layers",
        "forward_train",
        replaced(recurrent._Recurrent, "_drop", _same_key),
        "rnn",
        "",
        "rnn",
        {"num_layers": 3},
    ),
)
