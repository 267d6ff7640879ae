"""What a layer may have done instead: the known differences between the frameworks, to be tried.

A hypothesis is a description and a function of the torch layer (a copy, in float64) and of its
arguments; where its result is what the Flax layer gave, the description is the likely cause. In
a description, {m...} stands for the torch layer. Axes are torch's.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

EPSILONS = (1e-3, 1e-5, 1e-6, 1e-8, 1e-12, 2.0**-23, 2.0**-52, 0.0)
SLOPES = (0.01, 0.02, 0.1, 0.2, 0.25, 0.3, 0.0)
ORDERS = {4: ("i", "f", "g", "o"), 3: ("r", "z", "n")}


class Hypothesis(NamedTuple):
    """A description, and the layer's output if it were so."""

    text: str
    output: Callable[..., Any]


def option(**changed: Any) -> Hypothesis:
    """The layer with other options."""
    ((name, value),) = changed.items()
    shown = f"{value:.3g}" if isinstance(value, float) else value

    def output(m, *args, **kwargs):
        setattr(m, name, value)
        return m(*args, **kwargs)

    return Hypothesis(f"{name} {shown}, not {{m.{name}}}", output)


def weights(text: str, kinds: str, change: Callable) -> Hypothesis:
    """The layer with weights, whose names begin as one of those named, that are changed."""

    def output(m, *args, **kwargs):
        with torch.no_grad():
            for name, value in m.named_parameters():
                if name.startswith(tuple(kinds.split())):
                    value.copy_(change(value.clone()))
        return m(*args, **kwargs)

    return Hypothesis(text, output)


def _axis(text: str, function: Callable) -> list[Hypothesis]:
    def over(axis):
        return lambda m, x: function(x, dim=axis)

    return [Hypothesis(f"{text} over axis {axis}, not {{m.dim}}", over(axis)) for axis in range(4)]


def _statistics(m, x):
    """The axes that a normalisation in training mode takes its statistics over, and a view."""
    if isinstance(m, nn.GroupNorm):
        x = x.unflatten(1, (m.num_groups, -1))
        return x, tuple(range(2, x.dim()))
    if isinstance(m, nn.LayerNorm | nn.RMSNorm):
        return x, tuple(range(-len(m.normalized_shape), 0))
    if isinstance(m, nn.modules.instancenorm._InstanceNorm):
        return x, tuple(range(2, x.dim()))
    return x, (0, *range(2, x.dim()))


def _normed(scale: Callable) -> Callable:
    """A normalisation that divides by `scale(variance, eps, number of values)`."""

    def output(m: Any, x):
        view, axes = _statistics(m, x)
        mean, var = view.mean(axes, keepdim=True), view.var(axes, correction=0, keepdim=True)
        n = math.prod(view.shape[axis] for axis in axes)
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and not m.training:
            assert m.running_mean is not None
            assert m.running_var is not None
            shape = (1, -1, *(1,) * (x.dim() - 2))
            mean, var = m.running_mean.reshape(shape), m.running_var.reshape(shape)
        if isinstance(m, nn.RMSNorm):
            mean, var = 0.0, view.square().mean(axes, keepdim=True)
        eps = torch.finfo(x.dtype).eps if m.eps is None else m.eps
        y = ((view - mean) / scale(var, eps, n)).reshape(x.shape)
        if m.weight is None:
            return y
        shape = m.weight.shape
        if not isinstance(m, nn.LayerNorm | nn.RMSNorm):
            shape = (-1, *(1,) * (x.dim() - 2))
        y = y * m.weight.reshape(shape)
        return y if getattr(m, "bias", None) is None else y + m.bias.reshape(shape)

    return output


def _other_mode(m, x):
    return m.train(not m.training)(x)


NORM = [
    *(option(eps=eps) for eps in EPSILONS),
    Hypothesis("eps outside the square root", _normed(lambda v, eps, n: v.sqrt() + eps)),
    Hypothesis("unbiased variance, n/(n-1)", _normed(lambda v, e, n: (v * n / (n - 1) + e).sqrt())),
    Hypothesis(
        "statistics over the batch too",
        lambda m, x: F.batch_norm(x, None, None, m.weight, m.bias, True, 0.0, m.eps),
    ),
    Hypothesis("variance in place of its root", _normed(lambda v, eps, n: v + eps)),
    Hypothesis("not centred: the mean is kept", lambda m, x: m(x) + _centre(m, x)),
    weights("no scale (weight)", "weight", torch.ones_like),
    weights("no shift (bias)", "bias", torch.zeros_like),
    weights("scale is 1 + weight", "weight", lambda w: 1 + w),
]


def _centre(m, x):
    view, axes = _statistics(m, x)
    ones = torch.zeros_like(view) + view.mean(axes, keepdim=True)
    var = view.var(axes, correction=0, keepdim=True)
    moved = (ones / (var + m.eps).sqrt()).reshape(x.shape)
    return moved if m.weight is None else moved * m.weight


def _swapped_statistics(m, x):
    m.running_mean, m.running_var = m.running_var, m.running_mean
    return m(x)


BATCH_NORM = [
    Hypothesis("running mean and variance interchanged", _swapped_statistics),
    Hypothesis("running statistics and those of the batch interchanged", _other_mode),
    *NORM,
]


def _shifted(axis: int, by: int) -> Callable:
    """The layer on an input that is moved by a pixel, with zeros behind it."""

    def output(m, x):
        pad = [0, 0] * (x.dim() - axis)
        pad[-2:] = [by, -by]
        return m(F.pad(x, pad))

    return output


def _padded(sizes: Callable) -> Callable:
    """A convolution whose padding is `sizes(length, kernel, stride, dilation)`, both ends."""

    def output(m, x):
        numbers = zip(x.shape[2:], m.kernel_size, m.stride, m.dilation, strict=True)
        ends = [sizes(*number) for number in numbers]
        m.padding = (0,) * len(ends)
        return m(F.pad(x, [end for pair in reversed(ends) for end in pair]))

    return output


def _same(length, kernel, stride, dilation):
    """SAME in XLA and TensorFlow: an odd number of pixels has its larger half at the end."""
    total = max((-(-length // stride) - 1) * stride + dilation * (kernel - 1) + 1 - length, 0)
    return total // 2, total - total // 2


def _spatial(w):
    return w.flip(tuple(range(2, w.dim())))


CONVOLUTION = [
    Hypothesis("SAME padding, not {m.padding}", _padded(_same)),
    *(
        Hypothesis(f"padding {n}, not {{m.padding}}", _padded(lambda *sizes, n=n: (n, n)))
        for n in range(4)
    ),
    weights("flipped kernel", "weight", _spatial),
    weights("kernel with rows and columns interchanged", "weight", lambda w: w.transpose(-1, -2)),
    weights("kernel with inputs and outputs interchanged", "weight", lambda w: w.transpose(0, 1)),
    weights("no bias", "bias", torch.zeros_like),
    weights("bias added twice", "bias", lambda b: 2 * b),
    *(
        Hypothesis(f"input shifted by {by} pixel along axis {axis}", _shifted(axis, by))
        for axis in (2, 3, 4)
        for by in (1, -1)
    ),
]


def _everywhere(name: str, number: int) -> Callable:
    def output(m, x):
        setattr(m, name, (number,) * len(getattr(m, name)))
        return m(x)

    return output


TRANSPOSED = [
    weights("kernel with rows and columns interchanged", "weight", lambda w: w.transpose(-1, -2)),
    weights("flipped kernel", "weight", _spatial),
    weights("kernel with inputs and outputs interchanged", "weight", lambda w: w.transpose(0, 1)),
    weights("no bias", "bias", torch.zeros_like),
    *(
        Hypothesis(f"{name} {n}, not {{m.{name}}}", _everywhere(name, n))
        for name in ("padding", "output_padding")
        for n in range(4)
    ),
]


def _mean_of_windows(m, x):
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[x.dim() - 2]
    return pool(x, m.kernel_size, m.stride, m.padding, m.ceil_mode)


MAX_POOL = [
    Hypothesis("mean in place of the maximum", _mean_of_windows),
    Hypothesis("minimum in place of the maximum", lambda m, x: -m(-x)),
    option(ceil_mode=True),
    option(ceil_mode=False),
    *(option(padding=n) for n in range(3)),
    Hypothesis("padded with zeros that may win", lambda m, x: m(x).clamp(min=0)),
]
AVERAGE_POOL = [
    option(count_include_pad=False),
    option(count_include_pad=True),
    option(ceil_mode=True),
    option(ceil_mode=False),
    *(option(padding=n) for n in range(3)),
]


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


FUNCTIONS: dict[str, Callable] = {
    "nothing": lambda x: x,
    "ReLU": F.relu,
    "GELU by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "GELU by the error function": F.gelu,
    "GELU by x sigmoid(1.702 x)": lambda x: x * torch.sigmoid(1.702 * x),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "SiLU": F.silu,
    "ELU": F.elu,
    "SELU": F.selu,
    "softplus": F.softplus,
    "ReLU6": F.relu6,
    "hard sigmoid x/6 + 1/2": F.hardsigmoid,
    "hard sigmoid x/5 + 1/2": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "LeakyReLU of slope 0.01": F.leaky_relu,
    "LeakyReLU of slope 0.2": lambda x: F.leaky_relu(x, 0.2),
    "softmax": lambda x: x.softmax(-1),
    "log-softmax": lambda x: x.log_softmax(-1),
    "absolute value": torch.abs,
}
ACTIVATION = [
    Hypothesis(f"{name} in place of {{m.__class__.__name__}}", lambda m, x, f=function: f(x))
    for name, function in FUNCTIONS.items()
]

TABLE: list[tuple[Any, list[Hypothesis]]] = [
    (nn.GELU, [Hypothesis(text, lambda m, x, f=f: f(x)) for text, f in FUNCTIONS.items()]),
    (nn.LeakyReLU, [option(negative_slope=slope) for slope in SLOPES]),
    (nn.PReLU, [weights("slope 0.01, whatever the weight", "weight", lambda w: 0 * w + 0.01)]),
    (nn.ELU | nn.CELU, [option(alpha=alpha) for alpha in (1.0, 0.5, 2.0)]),
    (nn.Softplus, [option(beta=1.0), option(threshold=math.inf)]),
    (nn.Softmax, _axis("softmax", torch.softmax)),
    (nn.LogSoftmax, _axis("log-softmax", torch.log_softmax)),
    (nn.modules.batchnorm._BatchNorm, BATCH_NORM),
    (nn.modules.instancenorm._InstanceNorm | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm, NORM),
    (
        nn.Linear,
        [
            weights("no bias", "bias", torch.zeros_like),
            weights("weight transposed", "weight", lambda w: w.T),
            weights("bias added twice", "bias", lambda b: 2 * b),
            weights("bias subtracted", "bias", torch.neg),
        ],
    ),
    (nn.modules.conv._ConvTransposeNd, TRANSPOSED),
    (nn.Conv1d | nn.Conv2d | nn.Conv3d, CONVOLUTION),
    (nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d, MAX_POOL),
    (nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d, AVERAGE_POOL),
    (
        nn.Flatten,
        [
            Hypothesis("channels last", lambda m, x: m(x.movedim(1, -1))),
            Hypothesis("channels last", lambda m, x: x.movedim(1, -1).flatten(1)),
        ],
    ),
    (nn.LSTM | nn.LSTMCell, LSTM),
    (nn.GRU | nn.GRUCell, GRU),
    (nn.RNN | nn.RNNCell, RNN),
    (nn.MultiheadAttention, ATTENTION),
    (
        nn.Embedding,
        [
            Hypothesis("index + 1: the row below", lambda m, x: m((x + 1) % m.num_embeddings)),
            Hypothesis("index - 1: the row above", lambda m, x: m((x - 1) % m.num_embeddings)),
            Hypothesis("scaled by sqrt(d)", lambda m, x: m(x) * m.embedding_dim**0.5),
            Hypothesis("padding is a row of zeros", lambda m, x: m(x) * (x != 0)[..., None]),
        ],
    ),
    (
        nn.Upsample,
        [option(align_corners=True), option(align_corners=False), option(mode="nearest")],
    ),
    (nn.Module, ACTIVATION),
]
ROUNDED = [
    Hypothesis(
        f"computed from numbers rounded to {name}",
        lambda m, *args, d=dtype: m(
            *(x.to(d).to(x) if torch.is_tensor(x) and x.is_floating_point() else x for x in args)
        ),
    )
    for name, dtype in (
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
        ("float32", torch.float32),
    )
]


def of(module: nn.Module) -> list[Hypothesis]:
    """What is tried for a torch layer, the most particular first.

    >>> [hypothesis.text for hypothesis in of(nn.LeakyReLU(0.2))][0]
    'negative_slope 0.01, not {m.negative_slope}'
    """
    return [
        hypothesis for kind, found in TABLE if isinstance(module, kind) for hypothesis in found
    ] + ROUNDED
