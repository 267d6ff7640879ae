"""torch.nn's recurrent layers: RNN, LSTM, GRU and their cells.

Weights have torch's names and layouts, and both biases are kept. Gradients are of reverse mode
only: `jax.jvp` of a layer is refused, `jax.hessian` works. Axes: t time, b batch, f features,
h hidden, p projected, n layers times directions.
"""

import abc
import warnings
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int

from flaxnets.layers.dropout import Dropout
from flaxnets.layers.init import uniform_fan_in
from flaxnets.layers.recurrence import (
    ELMAN,
    GATED,
    LONG_SHORT,
    Cell,
    Elman,
    State,
    prepare,
    recur,
)

Hidden = Array | tuple[Array, Array]  # h, or h and c of an LSTM
KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} {size} is too small; use 1 or more")


def _states(name: str, hx: Hidden | None, shapes: list[tuple[int, ...]], dtype: Any) -> State:
    """The given states, checked, or zeros."""
    if hx is None:
        return tuple(jnp.zeros(shape, dtype) for shape in shapes)
    if isinstance(hx, tuple) != (len(shapes) > 1):
        wanted = "a pair of arrays, h and c" if len(shapes) > 1 else "one array, h"
        raise ValueError(f"{name}: hx is of type {type(hx).__name__}; use {wanted}")
    states = hx if isinstance(hx, tuple) else (hx,)
    for index, (state, shape) in enumerate(zip(states, shapes, strict=True)):
        if state.shape != shape:
            label = f"hx[{index}]" if len(shapes) > 1 else "hx"
            raise ValueError(f"{name}: {label} has shape {state.shape}, not {shape}")
    return states


def _check_nonlinearity(name: str) -> None:
    if name not in ELMAN:
        raise ValueError(f"nonlinearity {name!r} is unknown; use {' or '.join(ELMAN)}")


class _Recurrent(nnx.Module):
    """What the three layers hold and do; the constructor is LSTM's."""

    gates: ClassVar[int]

    @property
    @abc.abstractmethod
    def _cell(self) -> Cell:
        """The arithmetic of one step."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        _check_sizes(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        if not 0 <= proj_size < hidden_size:
            raise ValueError(
                f"proj_size {proj_size} is out of range; use 0 for none or less than "
                f"hidden_size {hidden_size}"
            )
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout {dropout} is out of range; use 0 to 1")
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                f"dropout {dropout} acts between layers and num_layers is 1; use 2 or more",
                stacklevel=3,
            )
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self.deterministic = False
        output_size = proj_size or hidden_size
        init = uniform_fan_in(hidden_size)
        for layer in range(num_layers):
            size = input_size if layer == 0 else output_size * len(self._directions)
            shapes: tuple[tuple[int, ...], ...] = (
                (self.gates * hidden_size, size),
                (self.gates * hidden_size, output_size),
                (self.gates * hidden_size,) if bias else (),
                (self.gates * hidden_size,) if bias else (),
                (proj_size, hidden_size) if proj_size else (),
            )
            for direction in self._directions:
                for name, shape in zip(KINDS, shapes, strict=True):
                    if shape:
                        weight = nnx.Param(init(rngs.params(), shape))
                        setattr(self, f"{name}_l{layer}{direction}", weight)

    @property
    def _directions(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    def set_view(self, deterministic: bool | None = None) -> None:
        """Switch between training and evaluation, for `nnx.view`.

        Args:
            deterministic: True in evaluation, where nothing is dropped.
        """
        if deterministic is not None:
            self.deterministic = deterministic

    def __call__(
        self,
        x: Float[Array, "*t_b f"],
        hx: Hidden | None = None,
        *,
        lengths: Int[Array, "*b"] | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "*t_b d_h"], Any]:
        name = type(self).__name__
        if x.ndim not in (2, 3):
            raise ValueError(f"{name}: input {x.shape} has {x.ndim} axes; use 2 or 3")
        if x.shape[-1] != self.input_size:
            raise ValueError(
                f"{name}: input {x.shape} has {x.shape[-1]} features, not {self.input_size}"
            )
        batched = x.ndim == 3
        if lengths is not None and not batched:
            raise ValueError(f"{name}: lengths need an input with a batch axis, not {x.shape}")
        if not batched:
            x = rearrange(x, "t f -> t 1 f")
        elif self.batch_first:
            x = rearrange(x, "b t f -> t b f")
        if x.shape[0] == 0:
            raise ValueError(f"{name}: input has 0 time steps; use 1 or more")
        states = self._initial(hx, x, batched)
        keep = None if lengths is None else self._keep(lengths, x)

        dtype = jnp.result_type(x, *states, *self._weights(0, ""))
        x, finals = x.astype(dtype), list[State]()
        for layer in range(self.num_layers):
            if layer:
                x = self._drop(x, rngs)
            outputs = []
            for direction in self._directions:
                held = [weight.astype(dtype) for weight in self._weights(layer, direction)]
                z, weights = prepare(self._cell, x, held, self.bias)
                first = tuple(state[len(finals)].astype(z.dtype) for state in states)
                output, last = recur(self._cell, bool(direction), z, weights, first, keep)
                outputs.append(output)
                finals.append(last)
            x = jnp.concatenate(outputs, -1).astype(dtype)
            if keep is not None:
                x = jnp.where(keep, x, 0)

        final = tuple(jnp.stack(state).astype(dtype) for state in zip(*finals, strict=True))
        if not batched:
            x, final = x[:, 0], tuple(state[:, 0] for state in final)
        elif self.batch_first:
            x = rearrange(x, "t b h -> b t h")
        return x, final if len(final) > 1 else final[0]

    def _weights(self, layer: int, direction: str) -> list[Array]:
        names = [f"{kind}_l{layer}{direction}" for kind in KINDS]
        return [getattr(self, name)[...] for name in names if hasattr(self, name)]

    def _initial(self, hx: Hidden | None, x: Array, batched: bool) -> State:
        """The initial states, (n, b, h) each."""
        count = self.num_layers * len(self._directions)
        batch = x.shape[1:2] if batched else ()
        shapes = [(count, *batch, self.proj_size or self.hidden_size)]
        if self._cell is LONG_SHORT:
            shapes.append((count, *batch, self.hidden_size))
        states = _states(type(self).__name__, hx, shapes, x.dtype)
        return states if batched else tuple(state[:, None] for state in states)

    def _keep(self, lengths: Array, x: Array) -> Array:
        """Which times are within the lengths, (t, b, 1)."""
        name, (time, batch) = type(self).__name__, x.shape[:2]
        if lengths.shape != (batch,):
            raise ValueError(f"{name}: lengths have shape {lengths.shape}, not ({batch},)")
        if not isinstance(lengths, jax.core.Tracer):
            for length in np.asarray(lengths).tolist():
                if not 1 <= length <= time:
                    raise ValueError(f"{name}: lengths hold {length}; use 1 to {time}")
        return jnp.arange(time)[:, None, None] < rearrange(lengths.astype(int), "b -> 1 b 1")

    def _drop(self, x: Array, rngs: nnx.Rngs | None) -> Array:
        if self.deterministic or self.dropout == 0:
            return x
        if rngs is None and self.dropout < 1:
            raise ValueError(
                f"{type(self).__name__} in training draws numbers; call it with rngs=nnx.Rngs(seed)"
            )
        return Dropout(self.dropout)(x, rngs=rngs)


class RNN(_Recurrent):
    """Elman's network: h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu.

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        num_layers: how many layers are stacked.
        nonlinearity: "tanh" or "relu".
        bias: whether there are biases.
        batch_first: whether inputs and outputs are (b, t, f) and not (t, b, f).
        dropout: the share of values that is zeroed between layers in training.
        bidirectional: whether a second direction reads the sequence backwards.
        rngs: source of the initial weights, U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)).

    Called with x of the axes above, or (t, f), the initial states `hx` (n, b, h) or (n, h), 0
    without them, `lengths` (b,) and, in training with dropout, `rngs`; n is layers times
    directions. Returns the outputs of the last layer (t, b, h times directions) in the order
    of x and the final states, shaped as `hx`. With lengths the result is that of torch's packed
    sequences: outputs are 0 behind the end, the final state is that at the end, and the
    backward direction starts there.

    Raises:
        ValueError: an option out of range; an input, state or lengths of another shape; lengths
            below 1 or above t (inside `jax.jit`, where they are not known, a length below 1
            gives the initial state and outputs 0, and one above t counts as t); training with
            dropout but without `rngs`.

    Source: Elman 1990, Cognitive Science 14; torch.nn.RNN.

    >>> output, h = RNN(4, 3, rngs=nnx.Rngs(0))(jnp.ones((5, 2, 4)))
    >>> output.shape, h.shape
    ((5, 2, 3), (1, 2, 3))
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        _check_nonlinearity(nonlinearity)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            rngs=rngs,
        )
        self.nonlinearity = nonlinearity

    @property
    def _cell(self) -> Elman:
        return ELMAN[self.nonlinearity]


class LSTM(_Recurrent):
    """Long short-term memory, with torch's gates i, f, g, o.

    Args:
        input_size: features of the input.
        hidden_size: features of the cell, h.
        num_layers: how many layers are stacked.
        bias: whether there are biases.
        batch_first: whether inputs and outputs are (b, t, f) and not (t, b, f).
        dropout: the share of values that is zeroed between layers in training.
        bidirectional: whether a second direction reads the sequence backwards.
        proj_size: features p that the hidden state is projected to; 0 for no projection.
        rngs: source of the initial weights, U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)).

    Called as `RNN` is, with a pair of states: h (n, b, h), or (n, b, p) where it is projected,
    and c (n, b, h). Raises what `RNN` raises.

    Source: Hochreiter, Schmidhuber 1997, Neural Computation 9; torch.nn.LSTM.

    >>> layer = LSTM(4, 3, bidirectional=True, rngs=nnx.Rngs(0))
    >>> output, (h, c) = layer(jnp.ones((5, 2, 4)), lengths=jnp.array([5, 3]))
    >>> output.shape, h.shape, c.shape
    ((5, 2, 6), (2, 2, 3), (2, 2, 3))
    """

    gates = 4
    _cell = LONG_SHORT


class GRU(_Recurrent):
    """Gated recurrent units, reset behind the matrix product: n = tanh(.. + r (W_hn h + b_hn)).

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        num_layers: how many layers are stacked.
        bias: whether there are biases.
        batch_first: whether inputs and outputs are (b, t, f) and not (t, b, f).
        dropout: the share of values that is zeroed between layers in training.
        bidirectional: whether a second direction reads the sequence backwards.
        rngs: source of the initial weights, U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)).

    Called as `RNN` is; raises what `RNN` raises.

    Source: Cho et al. 2014, arXiv 1406.1078; torch.nn.GRU.

    >>> output, h = GRU(4, 3, num_layers=2, rngs=nnx.Rngs(0))(jnp.ones((5, 4)))
    >>> output.shape, h.shape
    ((5, 3), (2, 3))
    """

    gates = 3
    _cell = GATED

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            rngs=rngs,
        )


class _RecurrentCell(nnx.Module):
    """What the three cells hold and do."""

    gates: ClassVar[int]

    @property
    @abc.abstractmethod
    def _cell(self) -> Cell:
        """The arithmetic of one step."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, rngs: nnx.Rngs
    ) -> None:
        _check_sizes(input_size=input_size, hidden_size=hidden_size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        init, size = uniform_fan_in(hidden_size), self.gates * hidden_size
        self.weight_ih = nnx.Param(init(rngs.params(), (size, input_size)))
        self.weight_hh = nnx.Param(init(rngs.params(), (size, hidden_size)))
        self.bias_ih = nnx.data(nnx.Param(init(rngs.params(), (size,))) if bias else None)
        self.bias_hh = nnx.data(nnx.Param(init(rngs.params(), (size,))) if bias else None)

    def __call__(self, x: Float[Array, "*b f"], hx: Hidden | None = None) -> Any:
        name = type(self).__name__
        if x.ndim not in (1, 2):
            raise ValueError(f"{name}: input {x.shape} has {x.ndim} axes; use 1 or 2")
        if x.shape[-1] != self.input_size:
            raise ValueError(
                f"{name}: input {x.shape} has {x.shape[-1]} features, not {self.input_size}"
            )
        shape = (*x.shape[:-1], self.hidden_size)
        shapes = [shape] * (2 if self._cell is LONG_SHORT else 1)
        states = _states(name, hx, shapes, x.dtype)
        kinds = KINDS[: 4 if self.bias else 2]
        held = [getattr(self, kind)[...] for kind in kinds]
        dtype = jnp.result_type(x, *states, *held)
        held = [weight.astype(dtype) for weight in held]
        z, weights = self._cell.fold(*prepare(self._cell, x.astype(dtype), held, self.bias))
        states = tuple(state.astype(z.dtype) for state in states)
        moved = tuple(h.astype(dtype) for h in self._cell.forward(z, weights, states)[0])
        return moved if len(moved) > 1 else moved[0]


class RNNCell(_RecurrentCell):
    """One step of an `RNN`.

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        bias: whether there are biases.
        nonlinearity: "tanh" or "relu".
        rngs: source of the initial weights, U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)).

    Called with x (b, f) or (f,) and the state `hx` (b, h) or (h,), 0 without it. Returns the
    next state.

    Raises:
        ValueError: an option out of range; an input or state of another shape.

    Source: torch.nn.RNNCell.

    >>> RNNCell(4, 3, rngs=nnx.Rngs(0))(jnp.ones((2, 4))).shape
    (2, 3)
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        rngs: nnx.Rngs,
    ) -> None:
        _check_nonlinearity(nonlinearity)
        super().__init__(input_size, hidden_size, bias, rngs=rngs)
        self.nonlinearity = nonlinearity

    @property
    def _cell(self) -> Elman:
        return ELMAN[self.nonlinearity]


class LSTMCell(_RecurrentCell):
    """One step of an `LSTM`: called as `RNNCell` is, with and for a pair of states h and c.

    Args:
        input_size: features of the input.
        hidden_size: features of each state.
        bias: whether there are biases.
        rngs: source of the initial weights, U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)).

    Source: torch.nn.LSTMCell.

    >>> h, c = LSTMCell(4, 3, rngs=nnx.Rngs(0))(jnp.ones((2, 4)))
    >>> h.shape, c.shape
    ((2, 3), (2, 3))
    """

    gates = 4
    _cell = LONG_SHORT


class GRUCell(_RecurrentCell):
    """One step of a `GRU`: called as `RNNCell` is.

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        bias: whether there are biases.
        rngs: source of the initial weights, U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)).

    Source: torch.nn.GRUCell.

    >>> GRUCell(4, 3, rngs=nnx.Rngs(0))(jnp.ones(4)).shape
    (3,)
    """

    gates = 3
    _cell = GATED
