"""Faults in normalisation and its running statistics."""

import jax.numpy as jnp
from jax import lax

from flaxnets import layers
from flaxnets.bridge import Leaf
from flaxnets.bridge.rules import RULES
from flaxnets.layers import normalization
from flaxnets.layers.normalization import _BatchNorm, _Norm
from flaxnets.layers.shape import lifted
from flaxnets.parity.mutations.mutation import Mutation, call, constructed, replaced, ruled


def _unbiased(x, axes):
    mean, var = _moments(x, axes)
    n = x.size // mean.size
    return mean, var * n / (n - 1)


def _fast(x, axes):
    mean = x.mean(axes, keepdims=True)
    return mean, jnp.square(x).mean(axes, keepdims=True) - jnp.square(mean)


def _outside(x, mean, var, eps, weight, bias):
    mean, scale, weight, bias = (
        lifted(a, x.ndim) for a in (mean, 1 / (jnp.sqrt(var) + eps), weight[...], bias[...])
    )
    return (x - mean) * scale * weight + bias


def _biased(self, mean, var, factor):
    n = 4  # the batch
    _track(self, mean, var * (n - 1) / n, factor)


def _over_batch(call, layer, x):
    mean, var = _moments(x, (0, 1, 2))
    return _normalize(x, mean, var, layer.eps, layer.weight, layer.bias)


def _mode(wanted):
    """BatchNorm that is always in one mode."""

    def fault(call, layer, x):
        before = layer.use_running_average
        layer.use_running_average = wanted
        try:
            return call(layer, x)
        finally:
            layer.use_running_average = before

    return call(layers.BatchNorm1d, fault)


def _uncounted(call, layer, x):
    before = layer.num_batches_tracked[...]
    output = call(layer, x)
    layer.num_batches_tracked[...] = before
    return output


def _scaled_in_training(call, layer, x):
    return call(layer, x) if layer.use_running_average else call(layer, x) * (1 + 1e-6)


def _statistics_fixed(call, layer, x):
    """Batch statistics that gradients do not flow through."""
    if layer.use_running_average:
        return call(layer, x)
    mean, var = (lax.stop_gradient(m) for m in _moments(x, (0,)))
    return _normalize(x, mean, var, layer.eps, layer.weight, layer.bias)


def _group_norm(self, x, eps):
    before = self.epsilon
    self.epsilon = eps
    try:
        return _group_norm_call(self, x)
    finally:
        self.epsilon = before


_group_norm_call = layers.GroupNorm.__call__
_moments, _normalize, _track = normalization._moments, normalization._normalize, _Norm._track
_SWAPPED = tuple(
    leaf._replace(
        torch={"running_mean": "running_var", "running_var": "running_mean"}.get(
            leaf.torch, leaf.torch
        )
    )
    for leaf in RULES[layers.BatchNorm1d]
    if isinstance(leaf, Leaf)
)

MUTATIONS = (
    Mutation(
        "epsilon of LayerNorm 1e-6",
        "forward",
        constructed(layers.LayerNorm, eps=1e-6),
        "norm",
        "eps 1e-06, not 1e-05",
        "layer norm",
    ),
    Mutation(
        "epsilon outside the square root",
        "forward",
        replaced(normalization, "_normalize", _outside),
        "norm",
        "eps outside the square root",
        "layer norm",
    ),
    Mutation(
        "unbiased variance in LayerNorm",
        "gradients",
        replaced(normalization, "_moments", _unbiased),
        "norm",
        "unbiased variance, n/(n-1)",
        "layer norm",
    ),
    Mutation(
        "scale of LayerNorm left out",
        "intermediates",
        call(
            layers.LayerNorm,
            lambda call, layer, x: (
                (call(layer, x) - (bias := lifted(layer.bias[...], x.ndim)))
                / lifted(layer.weight[...], x.ndim)
                + bias
            ),
        ),
        "norm",
        "no scale",
        "layer norm",
    ),
    Mutation(
        "fast variance, E[x^2] - E[x]^2",
        "float32",
        replaced(normalization, "_moments", _fast),
        "norm",
        "digits are lost",
        "layer norm far from zero",
    ),
    Mutation(
        "epsilon of RMSNorm 1e-6",
        "forward",
        constructed(layers.RMSNorm, eps=1e-6),
        "norm",
        "eps 1e-06",
        "rms norm",
    ),
    Mutation(
        "epsilon of GroupNorm 1e-6",
        "forward",
        replaced(layers.GroupNorm, "__call__", lambda self, x: _group_norm(self, x, 1e-6)),
        "norm",
        "eps 1e-06",
        "group norm",
    ),
    Mutation(
        "InstanceNorm over the batch too",
        "forward",
        call(layers.InstanceNorm2d, _over_batch),
        "norm",
        "over the batch too",
        "instance norm",
    ),
    Mutation(
        "epsilon of BatchNorm 1e-6",
        "forward",
        constructed(layers.BatchNorm1d, eps=1e-6),
        "norm",
        "eps 1e-06, not 1e-05",
        "batch norm",
    ),
    Mutation(
        "biased running variance",
        "buffers",
        replaced(_BatchNorm, "_track", _biased),
        "norm.running_var",
        "biased variance",
        "batch norm",
    ),
    Mutation(
        "momentum the other way round",
        "buffers",
        constructed(layers.BatchNorm1d, momentum=0.9),
        "norm.running_mean",
        "momentum the other way round",
        "batch norm",
    ),
    Mutation(
        "momentum of Flax, 0.99",
        "buffers",
        constructed(layers.BatchNorm1d, momentum=0.01),
        "norm.running_mean",
        "Flax's 0.99",
        "batch norm",
    ),
    Mutation(
        "running statistics not updated",
        "buffers",
        replaced(_BatchNorm, "_track", lambda self, mean, var, factor: None),
        "norm.running_mean",
        "not updated",
        "batch norm",
    ),
    Mutation(
        "batches not counted",
        "buffers",
        call(layers.BatchNorm1d, _uncounted),
        "norm.num_batches_tracked",
        "not updated",
        "batch norm",
    ),
    Mutation(
        "running statistics in training",
        "forward_train",
        _mode(True),
        "norm",
        "interchanged",
        "batch norm",
    ),
    Mutation(
        "statistics of the batch in evaluation",
        "forward",
        _mode(False),
        "norm",
        "interchanged",
        "batch norm",
    ),
    Mutation(
        "unbiased variance in training",
        "forward_train",
        replaced(normalization, "_moments", _unbiased),
        "norm",
        "unbiased variance",
        "batch norm",
    ),
    Mutation(
        "wrong scale of batch statistics",
        "forward_train",
        call(layers.BatchNorm1d, _scaled_in_training),
        "norm",
        "larger by the factor 1.000001",
        "batch norm",
    ),
    Mutation(
        "running mean and variance interchanged by the bridge",
        "forward",
        ruled(layers.BatchNorm1d, *_SWAPPED),
        "norm",
        "running mean and variance interchanged",
        "batch norm",
    ),
)
