"""What a normalisation may have done instead. Axes are torch's."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from torch import nn

from flaxnets.parity.diagnosis.hypotheses.hypothesis import Hypothesis, option, weights

EPSILONS = (1e-3, 1e-5, 1e-6, 1e-8, 1e-12, 2.0**-23, 2.0**-52, 0.0)


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
