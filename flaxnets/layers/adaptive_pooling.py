"""torch.nn's adaptive average and maximum pooling, channels last.

Axes: b batch, x every spatial axis of the input, y of the output, c channels. Window i of n
along an axis of l pixels is [floor(i l / n), ceil((i + 1) l / n)): windows overlap where n does
not divide l.
"""

import abc
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float


class _AdaptivePool(nnx.Module):
    """Windows that give an output of the wanted size, whatever the input's.

    Args:
        output_size: in pixels, one number or one for every spatial axis; None for an axis
            that stays as it is.

    Raises:
        ValueError: an output_size below 1, or an empty input.
    """

    dims: ClassVar[int]

    def __init__(self, output_size: int | Sequence[int | None] | None) -> None:
        if output_size is None or isinstance(output_size, int):
            output_size = (output_size,) * self.dims
        sizes = tuple(output_size)
        if len(sizes) != self.dims:
            raise ValueError(f"output_size {sizes} has {len(sizes)} entries; use 1 or {self.dims}")
        if any(size is not None and size < 1 for size in sizes):
            raise ValueError(f"output_size {sizes} is too small; use 1 or more, or None")
        self.output_size = sizes

    def __call__(self, x: Float[Array, "*b_x c"]) -> Float[Array, "*b_y c"]:
        if x.ndim < self.dims + 1:
            raise ValueError(f"input {x.shape} has fewer than {self.dims + 1} axes")
        if 0 in x.shape[-1 - self.dims : -1]:
            raise ValueError(f"input {x.shape} has no pixels; use 1 or more along each axis")
        # Last axis first, so that of equal maxima the first in reading order is kept.
        for place in reversed(range(self.dims)):
            size, axis = self.output_size[place], x.ndim - 1 - self.dims + place
            if size is not None and size != x.shape[axis]:
                x = self._reduce(*_windows(x, axis, size), axis + 1)
        return x

    @abc.abstractmethod
    def _reduce(self, x: Array, inside: Array, axis: int) -> Array:
        """Windows along an axis to one entry each."""


def _windows(x: Array, axis: int, count: int) -> tuple[Array, Array]:
    """The windows of one axis along a new axis behind it, and which entries belong to them."""
    length = x.shape[axis]
    starts = [index * length // count for index in range(count)]
    ends = [-(-(index + 1) * length // count) for index in range(count)]
    longest = max(end - start for start, end in zip(starts, ends, strict=True))
    places = np.asarray(starts)[:, None] + np.arange(longest)
    inside = places < np.asarray(ends)[:, None]
    if length % count == 0:
        windows = x.reshape(*x.shape[:axis], count, longest, *x.shape[axis + 1 :])
    else:
        windows = jnp.take(x, np.minimum(places, length - 1), axis, mode="clip")
    inside = inside.reshape(*[1] * axis, count, longest, *[1] * (x.ndim - axis - 1))
    return windows, jnp.asarray(inside)


class _AdaptiveAvgPool(_AdaptivePool):
    """Mean of every window."""

    def _reduce(
        self, x: Float[Array, "..."], inside: Bool[Array, "..."], axis: int
    ) -> Float[Array, "..."]:
        return jnp.mean(x, axis, where=inside)


class _AdaptiveMaxPool(_AdaptivePool):
    """Largest entry of every window."""

    def _reduce(
        self, x: Float[Array, "..."], inside: Bool[Array, "..."], axis: int
    ) -> Float[Array, "..."]:
        # The first of equal maxima gets the gradient; `jnp.max` would share it among them.
        winner = jnp.argmax(jnp.where(inside, x, -jnp.inf), axis, keepdims=True)
        wins = lax.broadcasted_iota(winner.dtype, x.shape, axis) == winner
        return jnp.where(wins, x, 0).sum(axis)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """torch.nn.AdaptiveAvgPool1d on arrays (b, l, c).

    >>> AdaptiveAvgPool1d(2)(jnp.arange(3.0).reshape(1, 3, 1))[0, :, 0].tolist()
    [0.5, 1.5]
    """

    dims = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """torch.nn.AdaptiveAvgPool2d on arrays (b, h, w, c).

    >>> AdaptiveAvgPool2d(6)(jnp.ones((2, 13, 5, 3))).shape
    (2, 6, 6, 3)
    """

    dims = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """torch.nn.AdaptiveAvgPool3d on arrays (b, d, h, w, c).

    >>> AdaptiveAvgPool3d((None, 2, 1))(jnp.ones((2, 4, 5, 6, 3))).shape
    (2, 4, 2, 1, 3)
    """

    dims = 3


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """torch.nn.AdaptiveMaxPool1d on arrays (b, l, c).

    >>> AdaptiveMaxPool1d(2)(jnp.arange(3.0).reshape(1, 3, 1))[0, :, 0].tolist()
    [1.0, 2.0]
    """

    dims = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """torch.nn.AdaptiveMaxPool2d on arrays (b, h, w, c).

    >>> AdaptiveMaxPool2d((3, None))(jnp.ones((2, 7, 5, 3))).shape
    (2, 3, 5, 3)
    """

    dims = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """torch.nn.AdaptiveMaxPool3d on arrays (b, d, h, w, c).

    >>> AdaptiveMaxPool3d(1)(jnp.ones((2, 4, 5, 6, 3))).shape
    (2, 1, 1, 1, 3)
    """

    dims = 3
