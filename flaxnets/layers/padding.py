"""torch.nn's padding layers, channels last. Axes: b batch, x every spatial axis, c channels."""

import abc
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from flaxnets.layers.conv import PAD_MODES


class _Pad(nnx.Module):
    """Pixels added at the ends of every spatial axis, or taken off where negative.

    Args:
        padding: one number for every end, or two for every axis, beginning with the last
            axis as torch does: (left, right, top, bottom, front, back).

    Raises:
        ValueError: the wrong number of entries, or an input that is too small for them.
    """

    dims: ClassVar[int]

    def __init__(self, padding: int | Sequence[int]) -> None:
        ends = (padding,) * (2 * self.dims) if isinstance(padding, int) else tuple(padding)
        if len(ends) != 2 * self.dims:
            raise ValueError(f"padding {ends} has {len(ends)} entries; use 1 or {2 * self.dims}")
        self.padding = tuple(zip(ends[::2], ends[1::2], strict=True))[::-1]  # first axis first

    def __call__(self, x: Float[Array, "*b_x c"]) -> Float[Array, "*b_y c"]:
        if x.ndim < self.dims + 1:
            raise ValueError(f"input {x.shape} has fewer than {self.dims + 1} axes")
        for length, pair in zip(x.shape[-1 - self.dims : -1], self.padding, strict=True):
            if length + sum(min(end, 0) for end in pair) < 1:
                raise ValueError(f"padding {pair} leaves nothing of an axis of {length} pixels")
        batch = [(0, 0)] * (x.ndim - self.dims - 1)
        return self._pad(x, [*batch, *self.padding, (0, 0)])

    @abc.abstractmethod
    def _pad(self, x: Array, ends: list[tuple[int, int]]) -> Array:
        """The array with pixels added, or taken off, at both ends of every axis."""


class _ConstantPad(_Pad):
    """Pixels of one value added at the ends of every spatial axis; see `_Pad`."""

    def __init__(self, padding: int | Sequence[int], value: float | int) -> None:
        super().__init__(padding)
        self.value = value

    def _pad(self, x: Array, ends: list[tuple[int, int]]) -> Array:
        return lax.pad(x, jnp.asarray(self.value, x.dtype), [(*pair, 0) for pair in ends])


class _ZeroPad(_ConstantPad):
    """Zeros added at the ends of every spatial axis; see `_Pad`."""

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__(padding, 0.0)


class _ReflectionPad(_Pad):
    """The image mirrored in its border pixels, which are not repeated."""

    def _pad(self, x: Array, ends: list[tuple[int, int]]) -> Array:
        for length, pair in zip(x.shape, ends, strict=True):
            if max(pair) >= max(length, 1):
                raise ValueError(
                    f"padding {max(pair)} is not below the {length} pixels to be mirrored"
                )
        return _crop(_grow(x, ends, "reflect"), ends)


class _ReplicationPad(_Pad):
    """The border pixels repeated."""

    def _pad(self, x: Array, ends: list[tuple[int, int]]) -> Array:
        return _crop(_grow(x, ends, "replicate"), ends)


class _CircularPad(_Pad):
    """The image continued from its other side."""

    def _pad(self, x: Array, ends: list[tuple[int, int]]) -> Array:
        x = _crop(x, ends)  # first, since torch continues what is left of the image
        for length, pair in zip(x.shape, ends, strict=True):
            if max(pair) > max(length, 0):
                raise ValueError(f"padding {max(pair)} is above the {length} pixels to be repeated")
        return _grow(x, ends, "circular")


def _grow(x: Array, ends: list[tuple[int, int]], mode: str) -> Array:
    return jnp.pad(x, [(max(low, 0), max(high, 0)) for low, high in ends], mode=PAD_MODES[mode])


def _crop(x: Array, ends: list[tuple[int, int]]) -> Array:
    pads = [(min(low, 0), min(high, 0), 0) for low, high in ends]
    return lax.pad(x, jnp.zeros((), x.dtype), pads)


class ZeroPad1d(_ZeroPad):
    """torch.nn.ZeroPad1d on arrays (b, l, c).

    >>> ZeroPad1d(1)(jnp.arange(3.0).reshape(1, 3, 1))[0, :, 0].tolist()
    [0.0, 0.0, 1.0, 2.0, 0.0]
    """

    dims = 1


class ZeroPad2d(_ZeroPad):
    """torch.nn.ZeroPad2d on arrays (b, h, w, c).

    >>> ZeroPad2d((1, 2, 3, 0))(jnp.ones((2, 5, 6, 3))).shape
    (2, 8, 9, 3)
    """

    dims = 2


class ZeroPad3d(_ZeroPad):
    """torch.nn.ZeroPad3d on arrays (b, d, h, w, c).

    >>> ZeroPad3d((1, 2, 3, 0, 1, 1))(jnp.ones((2, 3, 4, 5, 3))).shape
    (2, 5, 7, 8, 3)
    """

    dims = 3


class ConstantPad1d(_ConstantPad):
    """torch.nn.ConstantPad1d on arrays (b, l, c).

    >>> ConstantPad1d(1, 7.0)(jnp.arange(3.0).reshape(1, 3, 1))[0, :, 0].tolist()
    [7.0, 0.0, 1.0, 2.0, 7.0]
    """

    dims = 1


class ConstantPad2d(_ConstantPad):
    """torch.nn.ConstantPad2d on arrays (b, h, w, c).

    >>> ConstantPad2d((1, 2, 3, 0), 7.0)(jnp.ones((2, 5, 6, 3))).shape
    (2, 8, 9, 3)
    """

    dims = 2


class ConstantPad3d(_ConstantPad):
    """torch.nn.ConstantPad3d on arrays (b, d, h, w, c).

    >>> ConstantPad3d((1, 2, 3, 0, 1, 1), 7.0)(jnp.ones((2, 3, 4, 5, 3))).shape
    (2, 5, 7, 8, 3)
    """

    dims = 3


class ReflectionPad1d(_ReflectionPad):
    """torch.nn.ReflectionPad1d on arrays (b, l, c).

    >>> ReflectionPad1d(1)(jnp.arange(3.0).reshape(1, 3, 1))[0, :, 0].tolist()
    [1.0, 0.0, 1.0, 2.0, 1.0]
    """

    dims = 1


class ReflectionPad2d(_ReflectionPad):
    """torch.nn.ReflectionPad2d on arrays (b, h, w, c).

    >>> ReflectionPad2d((1, 2, 3, 0))(jnp.ones((2, 5, 6, 3))).shape
    (2, 8, 9, 3)
    """

    dims = 2


class ReflectionPad3d(_ReflectionPad):
    """torch.nn.ReflectionPad3d on arrays (b, d, h, w, c).

    >>> ReflectionPad3d((1, 2, 3, 0, 1, 1))(jnp.ones((2, 3, 4, 5, 3))).shape
    (2, 5, 7, 8, 3)
    """

    dims = 3


class ReplicationPad1d(_ReplicationPad):
    """torch.nn.ReplicationPad1d on arrays (b, l, c).

    >>> ReplicationPad1d(1)(jnp.arange(3.0).reshape(1, 3, 1))[0, :, 0].tolist()
    [0.0, 0.0, 1.0, 2.0, 2.0]
    """

    dims = 1


class ReplicationPad2d(_ReplicationPad):
    """torch.nn.ReplicationPad2d on arrays (b, h, w, c).

    >>> ReplicationPad2d((1, 2, 3, 0))(jnp.ones((2, 5, 6, 3))).shape
    (2, 8, 9, 3)
    """

    dims = 2


class ReplicationPad3d(_ReplicationPad):
    """torch.nn.ReplicationPad3d on arrays (b, d, h, w, c).

    >>> ReplicationPad3d((1, 2, 3, 0, 1, 1))(jnp.ones((2, 3, 4, 5, 3))).shape
    (2, 5, 7, 8, 3)
    """

    dims = 3


class CircularPad1d(_CircularPad):
    """torch.nn.CircularPad1d on arrays (b, l, c).

    >>> CircularPad1d(1)(jnp.arange(3.0).reshape(1, 3, 1))[0, :, 0].tolist()
    [2.0, 0.0, 1.0, 2.0, 0.0]
    """

    dims = 1


class CircularPad2d(_CircularPad):
    """torch.nn.CircularPad2d on arrays (b, h, w, c).

    >>> CircularPad2d((1, 2, 3, 0))(jnp.ones((2, 5, 6, 3))).shape
    (2, 8, 9, 3)
    """

    dims = 2


class CircularPad3d(_CircularPad):
    """torch.nn.CircularPad3d on arrays (b, d, h, w, c).

    >>> CircularPad3d((1, 2, 3, 0, 1, 1))(jnp.ones((2, 3, 4, 5, 3))).shape
    (2, 5, 7, 8, 3)
    """

    dims = 3
