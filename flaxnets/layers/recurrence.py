"""The loop over time of the recurrent layers, with its gradient written out.

`lax.scan` over time does what depends on the state before; the projection of all inputs comes
in front of it and the gradient of the weights behind it, each one matrix product. JAX's own
gradient of the scan would add up the weights' gradient step by step. Being a `custom_vjp` it
has reverse mode only: `jax.jvp` is refused, `jax.hessian` works. States are carried in float32
at least. Axes: t time, b batch, h hidden, g gates times hidden.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from flaxnets.layers.shape import lifted

State = tuple[Array, ...]  # what is carried: h, and c of an LSTM
Weights = tuple[Array, ...]  # what a step needs: of hidden states


def _matmul(x: Array, weight: Array) -> Array:
    """A product in the dtype of the weight, summed in that of x."""
    return jnp.matmul(x.astype(weight.dtype), weight, preferred_element_type=x.dtype)


def _outer(dy: Array, x: Array, weight: Array) -> Array:
    """The gradient of a weight (y, x), summed over time and batch."""
    return jnp.einsum(
        "tby,tbx->yx",
        dy.astype(weight.dtype),
        x.astype(weight.dtype),
        preferred_element_type=dy.dtype,
    ).astype(weight.dtype)


class Elman:
    """h' = tanh or relu(z + W h). Source: Elman 1990, Cognitive Science 14."""

    def __init__(self, nonlinearity: str) -> None:
        self.relu = nonlinearity == "relu"

    def fold(self, z: Array, weights: Weights) -> tuple[Array, Weights]:
        """Inputs and weights as `forward` takes them."""
        return z, (weights[0].T,)

    def forward(self, z: Array, weights: Weights, state: State) -> tuple[State, Array | None]:
        """The next state, and what the gradient needs beside it."""
        total = z + _matmul(state[0], weights[0])
        return (jax.nn.relu(total) if self.relu else jnp.tanh(total),), None

    def backward(
        self, weights: Weights, before: State, after: State, saved: Any, grads: State
    ) -> tuple[State, tuple[Array, ...]]:
        """Gradients of the state before, and of z; then what `gradients` needs beside it."""
        (h,) = after
        dz = jnp.where(h > 0, grads[0], 0) if self.relu else grads[0] * (1 - h * h)
        return (_matmul(dz, weights[0]),), (dz,)

    def gradients(
        self, weights: Weights, before: State, after: State, saved: Any, found: tuple[Array, ...]
    ) -> Weights:
        """Gradients of the weights, from those of all times."""
        return (_outer(found[0], before[0], weights[0]),)


class LongShort:
    """The LSTM with gates i, f, g, o. Source: Hochreiter, Schmidhuber 1997, Neural Computation 9.

    All gates go through one tanh: sigmoid(x) = tanh(x / 2) / 2 + 1 / 2. The projection, where
    there is one: Sak, Senior, Beaufays 2014, arXiv 1402.1128.
    """

    def fold(self, z: Array, weights: Weights) -> tuple[Array, Weights]:
        halves = _halves(4, z)
        folded = weights[0] * halves[:, None].astype(weights[0].dtype)
        return z * lifted(halves, z.ndim), (folded.T, *(weight.T for weight in weights[1:]))

    def forward(self, z: Array, weights: Weights, state: State) -> tuple[State, Array]:
        h, c = state
        halves = lifted(_halves(4, z), z.ndim)
        gates = jnp.tanh(z + _matmul(h, weights[0])) * halves + (1 - halves)
        i, f, g, o = jnp.split(gates, 4, -1)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (_matmul(h, weights[1]) if len(weights) > 1 else h, c), gates

    def backward(
        self, weights: Weights, before: State, after: State, saved: Array, grads: State
    ) -> tuple[State, tuple[Array, ...]]:
        i, f, g, o = jnp.split(saved, 4, -1)
        dh, dc = grads
        squashed = jnp.tanh(after[1])
        dm = _matmul(dh, weights[1]) if len(weights) > 1 else dh
        dc = dc + dm * o * (1 - squashed * squashed)
        di, df = dc * g * i * (1 - i), dc * before[1] * f * (1 - f)
        dg, do = dc * i * (1 - g * g), dm * squashed * o * (1 - o)
        dz = jnp.concatenate([di, df, dg, do], -1)
        return (_matmul(dz, weights[0]), dc * f), (dz, dh) if len(weights) > 1 else (dz,)

    def gradients(
        self, weights: Weights, before: State, after: State, saved: Array, found: tuple[Array, ...]
    ) -> Weights:
        hidden = _outer(found[0], before[0], weights[0])
        if len(weights) == 1:
            return (hidden,)
        m = jnp.split(saved, 4, -1)[3] * jnp.tanh(after[1])
        return hidden, _outer(found[1], m, weights[1])


class Gated:
    """The GRU with gates r, z, n, reset behind the matrix product as in cuDNN and torch.

    Source: Cho et al. 2014, arXiv 1406.1078 (its first version resets behind the product).
    """

    def fold(self, z: Array, weights: Weights) -> tuple[Array, Weights]:
        halves = _halves(3, z)
        folded = weights[0] * halves[:, None].astype(weights[0].dtype)
        return z * lifted(halves, z.ndim), (folded.T, *weights[1:])

    def forward(self, z: Array, weights: Weights, state: State) -> tuple[State, Array]:
        (h,) = state
        size = h.shape[-1]
        hidden = _matmul(h, weights[0])
        gates = jnp.tanh(z[..., : 2 * size] + hidden[..., : 2 * size]) * 0.5 + 0.5
        reset, update = jnp.split(gates, 2, -1)
        late = hidden[..., 2 * size :]
        if len(weights) > 1:
            late = late + lifted(weights[1].astype(z.dtype), z.ndim)
        new = jnp.tanh(z[..., 2 * size :] + reset * late)
        return (new + update * (h - new),), jnp.concatenate([gates, new, late], -1)

    def backward(
        self, weights: Weights, before: State, after: State, saved: Array, grads: State
    ) -> tuple[State, tuple[Array, ...]]:
        reset, update, new, late = jnp.split(saved, 4, -1)
        dnew = grads[0] * (1 - update) * (1 - new * new)
        dupdate = grads[0] * (before[0] - new) * update * (1 - update)
        dreset = dnew * late * reset * (1 - reset)
        dlate = dnew * reset
        dhidden = jnp.concatenate([dreset, dupdate, dlate], -1)
        return (grads[0] * update + _matmul(dhidden, weights[0]),), (
            jnp.concatenate([dreset, dupdate, dnew], -1),
            dlate,
        )

    def gradients(
        self, weights: Weights, before: State, after: State, saved: Array, found: tuple[Array, ...]
    ) -> Weights:
        dz, dlate = found
        dhidden = jnp.concatenate([dz[..., : -dlate.shape[-1]], dlate], -1)
        hidden = _outer(dhidden, before[0], weights[0])
        if len(weights) == 1:
            return (hidden,)
        return hidden, dlate.sum((0, 1)).astype(weights[1].dtype)


Cell = Elman | LongShort | Gated
ELMAN = {name: Elman(name) for name in ("tanh", "relu")}
LONG_SHORT, GATED = LongShort(), Gated()


def _halves(gates: int, z: Array) -> Array:
    """1/2 where a gate is a sigmoid and 1 where it is the tanh, the third."""
    halves = [1.0 if gate == 2 else 0.5 for gate in range(gates)]
    return jnp.repeat(jnp.array(halves, z.dtype), z.shape[-1] // gates)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def recur(
    cell: Cell, reverse: bool, z: Array, weights: Weights, state: State, keep: Array | None
) -> tuple[Array, State]:
    """All hidden states and the last state of one layer in one direction.

    Args:
        cell: what a step does.
        reverse: whether time runs backwards.
        z: projected inputs (t, b, g), biases added.
        weights: of a step.
        state: the initial one, of arrays (b, h).
        keep: (t, b, 1), False where the state stays as it was.
    """
    return _forward(cell, reverse, z, weights, state, keep)[0]


# Compiled once a cell, direction and shape, so that eager calls do not compile the loop anew.
_compiled = functools.partial(jax.jit, static_argnums=(0, 1))


@_compiled
def _forward(
    cell: Cell, reverse: bool, z: Array, weights: Weights, state: State, keep: Array | None
) -> tuple[tuple[Array, State], Any]:
    z, folded = cell.fold(z, weights)

    def step(state, inputs):
        z, keep = inputs
        moved, saved = cell.forward(z, folded, state)
        moved = _where(keep, moved, state)
        return moved, (moved, saved)

    last, (states, saved) = lax.scan(step, state, (z, keep), reverse=reverse)
    return (states[0], last), (weights, state, keep, states, saved)


@_compiled
def _backward(cell: Cell, reverse: bool, residuals: Any, cotangents: Any) -> tuple:
    weights, state, keep, states, saved = residuals
    outputs, last = cotangents
    before = tuple(
        jnp.concatenate([s[1:], first[None]] if reverse else [first[None], s[:-1]])
        for first, s in zip(state, states, strict=True)
    )

    def step(grads, inputs):
        output, before, after, saved, keep = inputs
        grads = (grads[0] + output, *grads[1:])
        moved, found = cell.backward(weights, before, after, saved, grads)
        return _where(keep, moved, grads), _where(keep, found, tuple(map(jnp.zeros_like, found)))

    inputs = (outputs, before, states, saved, keep)
    first, found = lax.scan(step, last, inputs, reverse=not reverse)
    return found[0], cell.gradients(weights, before, states, saved, found), first, None


recur.defvjp(_forward, _backward)


def _where(keep: Array | None, kept: tuple, other: tuple) -> tuple:
    if keep is None:
        return kept
    return tuple(jnp.where(keep, k, o) for k, o in zip(kept, other, strict=True))


def prepare(cell: Cell, x: Array, held: list[Array], bias: bool) -> tuple[Array, Weights]:
    """The projected inputs, with the biases that may be added before the steps; what they need.

    Args:
        cell: what a step does.
        x: inputs of one dtype with the weights, features last.
        held: the weights of a layer in torch's order: ih, hh, then both biases, then hr.
        bias: whether there are biases.
    """
    weight_ih, weight_hh, *rest = held
    z = jnp.matmul(x, weight_ih.T, preferred_element_type=_wide(x.dtype))
    if not bias:
        return z, (weight_hh, *rest)
    bias_ih, bias_hh, *rest = rest
    if cell is GATED:  # its last hidden bias is reset with the product that it belongs to
        early, late = bias_hh[: -weight_hh.shape[1]], bias_hh[-weight_hh.shape[1] :]
        bias_hh, rest = jnp.pad(early, (0, len(late))), [late]
    return z + lifted((bias_ih + bias_hh).astype(z.dtype), z.ndim), (weight_hh, *rest)


def _wide(dtype: Any) -> Any:
    return np.promote_types(dtype, np.float32)
