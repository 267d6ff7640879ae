"""What a recurrent layer or an attention may have done instead. Axes are torch's."""

import itertools
from collections.abc import Callable

import torch
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from flaxnets.parity.diagnosis.hypotheses.hypothesis import Hypothesis, option, weights

ORDERS = {4: ("i", "f", "g", "o"), 3: ("r", "z", "n")}


def _orders(gates: int) -> list[Hypothesis]:
    """Every other order of the gates."""
    found = []
    for order in list(itertools.permutations(range(gates)))[1:]:
        names = ", ".join(ORDERS[gates][gate] for gate in order)
        text = f"gates in the order {names}, not {', '.join(ORDERS[gates])}"
        found.append(
            weights(
                text,
                "weight_ih weight_hh bias",
                lambda w, order=order: torch.cat([w.chunk(len(order))[gate] for gate in order]),
            )
        )
    return found


def reading_padding(padded: torch.Tensor) -> Hypothesis:
    """A recurrent layer on a whole padded batch, each output cut where torch's ends.

    Args:
        padded: the batch that the Flax layer was given, batch first.
    """

    def output(m, x, *hx):
        lengths = pad_packed_sequence(x)[1]
        output, state = m(padded if m.batch_first else padded.transpose(0, 1), *hx)
        output = output if m.batch_first else output.transpose(0, 1)
        return output * (torch.arange(output.size(1)) < lengths[:, None])[..., None], state

    return Hypothesis("lengths ignored: padding is read", output)


def _on_sequences(m, x, step):
    """A recurrent layer of one layer and direction, by a step (x, h) -> h."""
    if m.num_layers > 1 or m.bidirectional:
        raise ValueError("tried with one layer and direction only")
    lengths = None
    if isinstance(x, PackedSequence):
        x, lengths = pad_packed_sequence(x, batch_first=True)
    elif not m.batch_first:
        x = x.transpose(0, 1)
    h = x.new_zeros(x.size(0), m.hidden_size)
    outputs = []
    for t, inputs in enumerate(x.unbind(1)):
        after = step(inputs, h)
        h = after if lengths is None else torch.where((t < lengths)[:, None], after, h)
        outputs.append(h if lengths is None else h * (t < lengths)[:, None])
    output = torch.stack(outputs, 1)
    return output if m.batch_first else output.transpose(0, 1), h[None]


def _gru(reset_first: bool, keeps: bool) -> Callable:
    """A GRU that resets before the matrix product, or whose update gate is the other way round."""

    def output(m, x, *hx):
        weight_ih, weight_hh, bias_ih, bias_hh = (
            getattr(m, name).chunk(3) for name in m._all_weights[0]
        )

        def step(x, h):
            z = [x @ w.T + b for w, b in zip(weight_ih, bias_ih, strict=True)]
            g = [h @ w.T + b for w, b in zip(weight_hh, bias_hh, strict=True)]
            r, u = (z[0] + g[0]).sigmoid(), (z[1] + g[1]).sigmoid()
            late = (r * h) @ weight_hh[2].T + bias_hh[2] if reset_first else r * g[2]
            new = (z[2] + late).tanh()
            return u * h + (1 - u) * new if keeps else (1 - u) * h + u * new

        return _on_sequences(m, x, step)

    return output


def _last_third(w):
    return torch.cat([w[: 2 * len(w) // 3], torch.zeros_like(w[2 * len(w) // 3 :])])


def _forget_one(b):
    return torch.cat([b[: len(b) // 4], b[len(b) // 4 : len(b) // 2] + 1, b[len(b) // 2 :]])


def _directions(change: Callable) -> Callable:
    def output(m, x, *hx):
        y, state = m(x, *hx)
        data = y.data if isinstance(y, PackedSequence) else y
        moved = change(*data.chunk(2, -1))
        return (PackedSequence(moved, *y[1:]) if isinstance(y, PackedSequence) else moved), state

    return output


RECURRENT = [
    weights("no hidden bias (bias_hh)", "bias_hh", torch.zeros_like),
    weights("no input bias (bias_ih)", "bias_ih", torch.zeros_like),
    weights("no biases", "bias", torch.zeros_like),
    weights(
        "hidden weights transposed",
        "weight_hh",
        lambda w: torch.cat([gate.T for gate in w.split(w.size(1))]),
    ),
    Hypothesis("no dropout between the layers", lambda m, *args: m.eval()(*args)),
    Hypothesis("directions interchanged", _directions(lambda a, b: torch.cat([b, a], -1))),
    Hypothesis("both directions the first", _directions(lambda a, b: torch.cat([a, a], -1))),
    Hypothesis(
        "no state: every step starts at 0",
        lambda m, x, *hx: _on_sequences(m, x, lambda x, h: m(x[:, None])[0][:, 0]),
    ),
]
LSTM = [
    *RECURRENT,
    *_orders(4),
    weights("1 added to the forget gate", "bias_ih", _forget_one),
]
GRU = [
    *RECURRENT,
    Hypothesis("reset before the hidden matrix product", _gru(reset_first=True, keeps=True)),
    Hypothesis("update gate the other way round", _gru(reset_first=False, keeps=False)),
    weights("no hidden bias of n (b_hn)", "bias_hh", _last_third),
    *_orders(3),
]
RNN = [*RECURRENT, option(mode="RNN_RELU"), option(mode="RNN_TANH")]


def _masks(change: Callable) -> Callable:
    def output(m, *args, **kwargs):
        names = ("attn_mask", "key_padding_mask")
        changed = {name: change(kwargs[name]) for name in names if kwargs.get(name) is not None}
        if not changed:
            raise ValueError("no mask")
        return m(*args, **{**kwargs, **changed})

    return output


def _projections(change: Callable) -> Callable:
    """Rows of the projections of q, k and v, each of them changed."""

    def changed(w):
        return torch.cat(change(*w.chunk(3)))

    return changed


def _scaled(by: Callable) -> Callable:
    def output(m, *args, **kwargs):
        with torch.no_grad():
            for w in (m.in_proj_weight, m.in_proj_bias):
                w[: m.embed_dim] *= by(m.head_dim)
        return m(*args, **kwargs)

    return output


def _other_heads(m, *args, **kwargs):
    """Features split as (d, heads) in place of (heads, d)."""
    order = torch.arange(m.embed_dim).reshape(m.head_dim, m.num_heads).T.ravel()
    with torch.no_grad():
        for w in (m.in_proj_weight, m.in_proj_bias):
            w.copy_(torch.cat([part[order] for part in w.chunk(3)]))
        m.out_proj.weight.copy_(m.out_proj.weight[:, order])
    return m(*args, **kwargs)


ATTENTION = [
    Hypothesis("mask dropped", _masks(lambda mask: None)),
    Hypothesis("mask inverted", _masks(torch.logical_not)),
    Hypothesis("no scale 1/sqrt(d)", _scaled(lambda d: d**0.5)),
    Hypothesis("scaled twice by 1/sqrt(d)", _scaled(lambda d: d**-0.5)),
    Hypothesis("heads split in another order", _other_heads),
    weights("q and k interchanged", "in_proj", _projections(lambda q, k, v: (k, q, v))),
    weights("q and v interchanged", "in_proj", _projections(lambda q, k, v: (v, k, q))),
    weights("k and v interchanged", "in_proj", _projections(lambda q, k, v: (q, v, k))),
    weights("no bias of the projections", "in_proj_bias", torch.zeros_like),
]
