"""Torch's stacked recurrent networks layer by layer, with replayed dropout between the layers.

`torch.nn.RNN`, `LSTM` and `GRU` call one function for all layers and directions, which draws
its masks inside; here it is called once a layer. Axes: t time, b batch, f features. In a packed
batch the rows of one time stand together, those of the longest sequence first.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

NAMES = ("lstm", "gru", "rnn_tanh", "rnn_relu")


class Call(NamedTuple):
    """The arguments that torch.nn's layers pass by position, padded or packed."""

    x: torch.Tensor
    batch_sizes: torch.Tensor | None
    hx: Any
    params: Sequence[torch.Tensor]
    has_biases: bool
    num_layers: int
    dropout: float
    train: bool
    bidirectional: bool
    batch_first: bool = False


def recurrent_call(func: Callable, args: Sequence[Any]) -> Call | None:
    """The call of a recurrent network that drops between its layers; None of anything else.

    >>> recurrent_call(torch.relu, (torch.ones(2),)) is None
    True
    """
    if func.__name__ not in NAMES:
        return None
    padded = isinstance(args[3], bool)  # where a packed call has its weights
    call = Call(args[0], None, *args[1:]) if padded else Call(*args)
    drops = call.train and call.dropout > 0 and call.num_layers > 1
    return call if drops else None


def layer_by_layer(replay: Any, func: Callable, call: Call) -> tuple[torch.Tensor, ...]:
    """What the call returns, with masks that a replay draws behind each layer but the last.

    Args:
        replay: the context that draws.
        func: `torch.lstm`, `gru`, `rnn_tanh` or `rnn_relu`.
        call: its arguments.
    """
    pair = isinstance(call.hx, tuple | list)
    states = call.hx if pair else (call.hx,)
    directions, held = 1 + call.bidirectional, len(call.params) // call.num_layers
    front, back = (
        ((), (call.batch_first,)) if call.batch_sizes is None else ((call.batch_sizes,), ())
    )
    x, finals = call.x, []
    for layer in range(call.num_layers):
        if layer:
            x = _dropped(replay, x, call)
        own = tuple(state[layer * directions : (layer + 1) * directions] for state in states)
        params = list(call.params[layer * held : (layer + 1) * held])
        options = (params, call.has_biases, 1, 0.0, call.train, call.bidirectional, *back)
        x, *final = func(x, *front, own if pair else own[0], *options)
        finals.append(final)
    return (x, *(torch.cat(state) for state in zip(*finals, strict=True)))


def _dropped(replay: Any, x: torch.Tensor, call: Call) -> torch.Tensor:
    if call.dropout == 1:
        return x * torch.zeros((), dtype=x.dtype)
    if call.batch_sizes is not None:
        kept = _packed_mask(replay, x, call.batch_sizes.tolist(), call.dropout)
    elif call.batch_first:
        b, t, f = x.shape
        kept = replay.kept((t, b, f), call.dropout).transpose(0, 1)
    else:
        kept = replay.kept(x.shape, call.dropout)
    return x * (kept.to(x) / (1 - call.dropout))


def _packed_mask(replay: Any, x: torch.Tensor, sizes: list[int], p: float) -> torch.Tensor:
    """A mask drawn for the padded batch, packed as the batch is."""
    rows = replay.packed_rows()
    kept = replay.kept(replay.longer((len(sizes), sizes[0], x.shape[1])), p)
    return torch.cat([kept[time, rows[:size]] for time, size in enumerate(sizes)])
