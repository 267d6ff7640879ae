"""What a layer may have done instead: the known differences between the frameworks, to be tried.

A hypothesis is a description and a function of the torch layer (a copy, in float64) and of its
arguments; where its result is what the Flax layer gave, the description is the likely cause. In
a description, {m...} stands for the torch layer. Axes are torch's.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from torch import nn

from flaxnets.parity.diagnosis.hypotheses.hypothesis import Hypothesis, option, weights
from flaxnets.parity.diagnosis.hypotheses.maps import (
    AVERAGE_POOL,
    CONVOLUTION,
    MAX_POOL,
    TRANSPOSED,
)
from flaxnets.parity.diagnosis.hypotheses.norms import BATCH_NORM, NORM
from flaxnets.parity.diagnosis.hypotheses.sequences import (
    ATTENTION,
    GRU,
    LSTM,
    RNN,
    reading_padding,
)

__all__ = ["FUNCTIONS", "TABLE", "Hypothesis", "of", "reading_padding"]

SLOPES = (0.01, 0.02, 0.1, 0.2, 0.25, 0.3, 0.0)


def _axis(text: str, function: Callable) -> list[Hypothesis]:
    def over(axis):
        return lambda m, x: function(x, dim=axis)

    return [Hypothesis(f"{text} over axis {axis}, not {{m.dim}}", over(axis)) for axis in range(4)]


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
