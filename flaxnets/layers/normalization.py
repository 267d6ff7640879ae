"""torch.nn's normalisation layers, channels last.

Variances are means of squared distances from the mean, never E[x^2] - E[x]^2, and are taken in
float32 at least. Weights and buffers have torch's names. Axes: b batch, x every spatial axis,
c channels.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from flaxnets.layers.shape import lifted


def _moments(x: Array, axes: Sequence[int]) -> tuple[Array, Array]:
    """Mean and biased variance over some axes, which are kept with length 1."""
    x = _wide(x)
    mean = x.mean(axes, keepdims=True)
    return mean, jnp.square(x - mean).mean(axes, keepdims=True)


def _wide(x: Array) -> Array:
    """Half precision as float32, the rest as it is."""
    return x.astype(np.promote_types(x.dtype, np.float32))


def _normalize(x: Array, mean: Array, var: Array, eps: float, weight: Any, bias: Any) -> Array:
    mean, scale = (lifted(a, x.ndim) for a in (_wide(mean), lax.rsqrt(_wide(var) + eps)))
    if weight is not None:
        scale = scale * lifted(_wide(weight[...]), x.ndim)
    y = (_wide(x) - mean) * scale
    return (y if bias is None else y + lifted(_wide(bias[...]), x.ndim)).astype(x.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _normalize_batch(
    eps: float, x: Array, weight: Array | None, bias: Array | None
) -> tuple[Array, Array, Array]:
    """Every channel scaled by its own statistics, and these."""
    mean, var = (m.ravel() for m in _moments(x, range(x.ndim - 1)))
    return _normalize(x, mean, var, eps, weight, bias), mean, var


@_normalize_batch.defjvp
def _normalize_batch_jvp(eps: float, primals: tuple, tangents: tuple) -> tuple:
    """Transposed it takes two sums over the batch, where JAX's own derivative takes four."""
    x, weight, bias = primals
    dx, dweight, dbias = tangents
    y, mean, var = _normalize_batch(eps, x, weight, bias)
    axes = tuple(range(x.ndim - 1))
    scale = lax.rsqrt(_wide(var) + eps)
    standard = (_wide(x) - lifted(mean, x.ndim)) * lifted(scale, x.ndim)
    dx = _wide(dx)
    dmean, along = dx.mean(axes), (standard * dx).mean(axes)
    gain = scale if weight is None else scale * _wide(weight)
    slope, shift = -gain * along, -gain * dmean
    if dweight is not None:
        slope += _wide(dweight)
    if dbias is not None:
        shift += _wide(dbias)
    gain, slope, shift = (lifted(a, x.ndim) for a in (gain, slope, shift))
    dy = gain * dx + standard * slope + shift
    return (y, mean, var), (dy.astype(y.dtype), dmean, 2 * along / scale)


class _Norm(nnx.Module):
    """What batch and instance normalisation hold and check."""

    dims: ClassVar[int]
    running_mean: Any  # None where no statistics are tracked, as the other two
    running_var: Any
    num_batches_tracked: Any

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        bias: bool,
    ) -> None:
        if num_features < 1:
            raise ValueError(f"num_features {num_features} is too small; use 1 or more")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"momentum {momentum} is out of range; use None or 0 to 1")
        shape = (num_features,)
        self.weight = nnx.Param(jnp.ones(shape, jnp.float32)) if affine else nnx.data(None)
        self.bias = nnx.Param(jnp.zeros(shape, jnp.float32)) if affine and bias else nnx.data(None)
        self.running_mean = nnx.data(None)
        self.running_var = nnx.data(None)
        self.num_batches_tracked = nnx.data(None)
        if track_running_stats:
            self.running_mean = nnx.BatchStat(jnp.zeros(shape, jnp.float32))
            self.running_var = nnx.BatchStat(jnp.ones(shape, jnp.float32))
            self.num_batches_tracked = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.track_running_stats = track_running_stats
        self.use_running_average = False

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Switch between statistics of the batch and running ones, for `nnx.view`.

        Args:
            use_running_average: True in evaluation, False in training.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def _check(self, x: Array, axes: tuple[int, ...]) -> None:
        name = type(self).__name__
        if x.ndim not in axes:
            wanted = " or ".join(map(str, axes))
            raise ValueError(f"{name}: input {x.shape} has {x.ndim} axes; use {wanted}")
        if x.shape[-1] != self.num_features:
            raise ValueError(
                f"{name}: input {x.shape} has {x.shape[-1]} channels, not {self.num_features}"
            )

    def _track(self, mean: Array, var: Array, factor: float | Array) -> None:
        """Move the running statistics towards those of a batch."""
        for running, new in ((self.running_mean, mean), (self.running_var, var)):
            old = running[...]
            kept = (1 - factor) * (old if isinstance(factor, float | int) else _wide(old))
            moved = _wide(kept) + factor * lax.stop_gradient(new)
            running[...] = moved.astype(old.dtype)


class _BatchNorm(_Norm):
    """Every channel scaled to mean 0 and variance 1 over batch and space.

    Training (`use_running_average` False) takes the statistics of the batch, with the biased
    variance, and moves the running ones, of which the variance is unbiased; evaluation takes
    the running ones. `nnx.view(model, use_running_average=...)` switches.

    Args:
        num_features: channels, the last axis.
        eps: added to the variance.
        momentum: the share of the new batch in the running statistics; None for their
            plain average over all batches.
        affine: whether a weight, and a bias, are learned for every channel.
        track_running_stats: whether there are running statistics; without them evaluation
            takes the batch's too.
        bias: whether `affine` learns a bias.
        rngs: taken like every layer's; nothing is drawn.

    Raises:
        ValueError: another number of axes or channels, or statistics of one value a channel.

    Source: Ioffe, Szegedy 2015, arXiv 1502.03167; torch.nn.BatchNorm1d, 2d and 3d.
    """

    axes: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias)

    def __call__(self, x: Float[Array, "*b_x c"]) -> Float[Array, "*b_x c"]:
        self._check(x, self.axes)
        if self.use_running_average and self.track_running_stats:
            mean, var = self.running_mean[...], self.running_var[...]
            return _normalize(x, mean, var, self.eps, self.weight, self.bias)
        count = math.prod(x.shape[:-1])
        if count == 1:
            raise ValueError(
                f"{type(self).__name__}: input {x.shape} has 1 value a channel, whose variance "
                "is 0; use a larger batch"
            )
        affine = (None if a is None else a[...] for a in (self.weight, self.bias))
        y, mean, var = _normalize_batch(self.eps, x, *affine)
        if self.track_running_stats:
            tracked = self.num_batches_tracked[...] + 1
            self.num_batches_tracked[...] = tracked
            factor: Any = self.momentum
            if factor is None:
                factor = 1 / tracked.astype(var.dtype)
            self._track(mean, var * (count / (count - 1)), factor)
        return y


class BatchNorm1d(_BatchNorm):
    """torch.nn.BatchNorm1d on arrays (b, c) and (b, l, c).

    >>> layer = BatchNorm1d(1)
    >>> layer(jnp.array([[1.0], [3.0]])).round(2).tolist()
    [[-1.0], [1.0]]
    >>> layer.running_mean.tolist(), layer.running_var.round(3).tolist()
    ([0.20000000298023224], [1.100000023841858])
    """

    axes = (2, 3)


class BatchNorm2d(_BatchNorm):
    """torch.nn.BatchNorm2d on arrays (b, h, w, c).

    >>> layer = nnx.view(BatchNorm2d(3), use_running_average=True)
    >>> float(layer(jnp.ones((2, 4, 4, 3))).max().round(3))
    1.0
    """

    axes = (4,)


class BatchNorm3d(_BatchNorm):
    """torch.nn.BatchNorm3d on arrays (b, d, h, w, c).

    >>> BatchNorm3d(2)(jnp.ones((2, 3, 4, 4, 2))).shape
    (2, 3, 4, 4, 2)
    """

    axes = (5,)


class _InstanceNorm(_Norm):
    """Every channel of every example scaled to mean 0 and variance 1 over space.

    Args:
        num_features: channels, the last axis.
        eps: added to the variance.
        momentum: the share of the new batch in the running statistics; None for none.
        affine: whether a weight, and a bias, are learned for every channel.
        track_running_stats: whether running statistics (means over the batch, unbiased
            variances) are kept and, in evaluation, used; `num_batches_tracked` stays 0, as
            it does in torch.
        bias: whether `affine` learns a bias.
        rngs: taken like every layer's; nothing is drawn.

    Raises:
        ValueError: another number of axes or channels, or statistics of one pixel.

    Source: Ulyanov, Vedaldi, Lempitsky 2016, arXiv 1607.08022; torch.nn.InstanceNorm1d to 3d.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias)

    def __call__(self, x: Float[Array, "*b_x c"]) -> Float[Array, "*b_x c"]:
        self._check(x, (self.dims + 1, self.dims + 2))
        if self.use_running_average and self.track_running_stats:
            mean, var = self.running_mean[...], self.running_var[...]
            return _normalize(x, mean, var, self.eps, self.weight, self.bias)
        count = math.prod(x.shape[-1 - self.dims : -1])
        if count == 1:
            raise ValueError(
                f"{type(self).__name__}: input {x.shape} has 1 pixel, whose variance is 0; "
                "use a larger input"
            )
        mean, var = _moments(x, range(x.ndim - 1 - self.dims, x.ndim - 1))
        if self.track_running_stats and self.momentum is not None:
            unbiased = var * (count / (count - 1))
            mean_b, var_b = (m.reshape(-1, self.num_features).mean(0) for m in (mean, unbiased))
            self._track(mean_b, var_b, self.momentum)
        return _normalize(x, mean, var, self.eps, self.weight, self.bias)


class InstanceNorm1d(_InstanceNorm):
    """torch.nn.InstanceNorm1d on arrays (b, l, c) and (l, c).

    >>> InstanceNorm1d(1)(jnp.array([[1.0], [3.0]])).round(2).tolist()
    [[-1.0], [1.0]]
    """

    dims = 1


class InstanceNorm2d(_InstanceNorm):
    """torch.nn.InstanceNorm2d on arrays (b, h, w, c) and (h, w, c).

    >>> InstanceNorm2d(3, affine=True)(jnp.ones((2, 4, 4, 3))).shape
    (2, 4, 4, 3)
    """

    dims = 2


class InstanceNorm3d(_InstanceNorm):
    """torch.nn.InstanceNorm3d on arrays (b, d, h, w, c) and (d, h, w, c).

    >>> InstanceNorm3d(2)(jnp.ones((2, 3, 4, 4, 2))).shape
    (2, 3, 4, 4, 2)
    """

    dims = 3


class LayerNorm(nnx.Module):
    """Every example scaled to mean 0 and variance 1 over its last axes.

    The axes are counted in Flax's layout: `LayerNorm(c)` on a feature map (b, h, w, c) scales
    every pixel's channels, which in torch takes a permutation. Over a whole feature map,
    `LayerNorm((h, w, c))` is torch's `LayerNorm((c, h, w))`, but their weights differ in layout,
    and the bridge, which takes them as they are, refuses them unless h = w = c; use GroupNorm
    with one group, or no weights.

    Args:
        normalized_shape: sizes of the last axes, or the size of the last one.
        eps: added to the variance.
        elementwise_affine: whether a weight, and a bias, of that shape are learned.
        bias: whether there is a bias.
        rngs: taken like every layer's; nothing is drawn.

    Raises:
        ValueError: an input that does not end in that shape.

    Source: Ba, Kiros, Hinton 2016, arXiv 1607.06450; torch.nn.LayerNorm.

    >>> LayerNorm(2)(jnp.array([1.0, 3.0])).round(2).tolist()
    [-1.0, 1.0]
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        shape = self.normalized_shape
        self.weight = (
            nnx.Param(jnp.ones(shape, jnp.float32)) if elementwise_affine else nnx.data(None)
        )
        self.bias = (
            nnx.Param(jnp.zeros(shape, jnp.float32))
            if elementwise_affine and bias
            else nnx.data(None)
        )

    def __call__(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        mean, var = _moments(x, _last(self, x))
        return _normalize(x, mean, var, self.eps, self.weight, self.bias)


class RMSNorm(nnx.Module):
    """Every example divided by its root mean square over its last axes.

    Args:
        normalized_shape: sizes of the last axes, in Flax's layout (see `LayerNorm`), or the
            size of the last one.
        eps: added to the mean square; None for the resolution of the dtype that it is taken
            in (2**-23 in float32).
        elementwise_affine: whether a weight of that shape is learned.
        rngs: taken like every layer's; nothing is drawn.

    Raises:
        ValueError: an input that does not end in that shape.

    Source: Zhang, Sennrich 2019, arXiv 1910.07467; torch.nn.RMSNorm.

    >>> RMSNorm(2)(jnp.array([3.0, 3.0])).tolist()
    [1.0, 1.0]
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        self.weight = (
            nnx.Param(jnp.ones(self.normalized_shape, jnp.float32))
            if elementwise_affine
            else nnx.data(None)
        )

    def __call__(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        axes = _last(self, x)
        wide = _wide(x)
        eps = float(jnp.finfo(wide.dtype).eps) if self.eps is None else self.eps
        y = wide * lax.rsqrt(jnp.square(wide).mean(axes, keepdims=True) + eps)
        return (y if self.weight is None else y * lifted(_wide(self.weight[...]), x.ndim)).astype(
            x.dtype
        )


def _shape(normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"normalized_shape {normalized_shape} is empty; use sizes of 1 or more")
    return shape


def _last(layer: LayerNorm | RMSNorm, x: Array) -> tuple[int, ...]:
    """The axes that are normalised over."""
    shape = layer.normalized_shape
    if x.shape[-len(shape) :] != shape:
        name = type(layer).__name__
        raise ValueError(f"{name}: input {x.shape} does not end in normalized_shape {shape}")
    return tuple(range(-len(shape), 0))


class GroupNorm(nnx.GroupNorm):
    """Every group of channels of every example scaled to mean 0 and variance 1.

    Args:
        num_groups: groups of neighbouring channels.
        num_channels: channels, the last axis.
        eps: added to the variance.
        affine: whether a weight, and a bias, are learned for every channel.
        bias: whether `affine` learns a bias.
        rngs: taken like every layer's; nothing is drawn.

    Raises:
        ValueError: channels that the groups do not divide, or an input without a batch axis
            or with other channels.

    Source: Wu, He 2018, arXiv 1803.08494; torch.nn.GroupNorm.

    >>> GroupNorm(2, 6)(jnp.ones((2, 4, 4, 6))).shape
    (2, 4, 4, 6)
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(
                f"num_channels {num_channels} is not a multiple of {num_groups} groups"
            )
        super().__init__(
            num_channels,
            num_groups,
            epsilon=eps,
            use_bias=affine and bias,
            use_scale=affine,
            use_fast_variance=False,
            rngs=rngs or nnx.Rngs(0),  # which draws nothing: weights are ones, biases zeros
        )
        self.num_channels = num_channels

    def __call__(self, x: Float[Array, "*b_x c"], *, mask: Any = None) -> Float[Array, "*b_x c"]:
        if x.ndim < 2 or x.shape[-1] != self.num_channels:
            raise ValueError(f"GroupNorm: input {x.shape} is not (b, ..., {self.num_channels})")
        with jax.numpy_dtype_promotion("standard"):  # Flax's own code promotes to float32
            return super().__call__(x, mask=mask)


class LocalResponseNorm(nnx.Module):
    """Every value divided by the energy of its neighbours in the channel axis.

    x / (k + alpha * mean of x^2 over `size` channels, zeros beyond the ends) ** beta.

    Args:
        size: how many neighbouring channels count.
        alpha: factor of their mean square.
        beta: exponent.
        k: added constant.

    Raises:
        ValueError: a size below 1, or an input of fewer than 3 axes.

    Source: Krizhevsky, Sutskever, Hinton 2012, section 3.3; torch.nn.LocalResponseNorm.

    >>> LocalResponseNorm(2)(jnp.ones((2, 4, 4, 6))).shape
    (2, 4, 4, 6)
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        if size < 1:
            raise ValueError(f"size {size} is too small; use 1 or more")
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def __call__(self, x: Float[Array, "*b_x c"]) -> Float[Array, "*b_x c"]:
        if x.ndim < 3:
            raise ValueError(f"LocalResponseNorm: input {x.shape} has {x.ndim} axes; use 3 or more")
        pads = [(0, 0)] * (x.ndim - 1) + [(self.size // 2, (self.size - 1) // 2)]
        squares = jnp.pad(jnp.square(x), pads)
        channels = x.shape[-1]
        taps = (lax.slice_in_dim(squares, i, i + channels, axis=-1) for i in range(self.size))
        energy = sum(taps, jnp.zeros_like(x)) / self.size
        return x / (self.k + self.alpha * energy) ** self.beta
