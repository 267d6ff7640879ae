"""torch.nn.ConvTranspose1d, ConvTranspose2d and ConvTranspose3d, channels last.

Axes: b batch, x every spatial axis of the input, y of the output, i in, o out.

A transposed convolution is the linear transpose of a strided convolution that reads its output
and writes its input. Here it is defined as just that, and so are its gradients: the input's is
that strided convolution, the kernel's is that convolution's kernel gradient with the roles of
input and output swapped. XLA's own gradient convolves a dilated input with the output, which
on a CPU took 6 to 27 times as long (kernel 4, stride 2, batch 32).

The kernel has that strided convolution's layout, (*kernel_size, o / groups, i): the one of
`flax.nnx.ConvTranspose` with `transpose_kernel=True`, and for any number of groups a mere
permutation of torch's (i, o / groups, *kernel_size).
"""

import functools
import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import jax
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from jaxtyping import Array, Float

from flaxnets.layers.conv import spread
from flaxnets.layers.init import uniform_fan_in
from flaxnets.layers.shape import lifted
from flaxnets.layers.strided import Window, input_gradient, kernel_gradient


class Strides(NamedTuple):
    """The strided convolution that is transposed: one number for every spatial axis."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def lengths(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The output's spatial axes for the input's, in pixels."""
        return tuple(
            (length - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1
            for length, kernel, stride, padding, extra, dilation in zip(
                shape, *self[:-1], strict=True
            )
        )

    @property
    def window(self) -> Window:
        """Of the convolution from output to input."""
        # Pixels that only output_padding added are never read, hence the smaller end.
        ends = zip(self.padding, self.output_padding, strict=True)
        padding = tuple((p, p - extra) for p, extra in ends)
        return Window(self.stride, padding, self.dilation, self.groups)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv_transpose(strides: Strides, x: Array, kernel: Array) -> Array:
    return input_gradient(strides.window, x, kernel, strides.lengths(x.shape[1:-1]))


def _forward(strides: Strides, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _conv_transpose(strides, x, kernel), (x, kernel)


def _backward(strides: Strides, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    window = strides.window
    return window.convolve(dy, kernel), kernel_gradient(window, dy, x, kernel)


_conv_transpose.defvjp(_forward, _backward)


class _ConvTranspose(nnx.Module):
    """Transposed cross-correlation over `dims` spatial axes.

    Args:
        in_channels: of the input, its last axis.
        out_channels: of the output.
        kernel_size: in pixels, one number or one for every spatial axis; likewise `stride`,
            `padding`, `output_padding` and `dilation`.
        stride: pixels of the output between two pixels of the input.
        padding: pixels taken off the output at both ends.
        output_padding: pixels added to the output at its end; less than the stride or the
            dilation.
        groups: blocks of channels that do not see each other.
        bias: whether one is added.
        dilation: pixels between two taps of the kernel.
        rngs: source of the initial weights.

    Raises:
        ValueError: channels that the groups do not divide, an output_padding that is too
            large, or an input so small that no output is left.
    """

    dims: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Sequence[int] = 1,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(f"{name} {channels} is not a multiple of groups {groups}")
        self.strides = Strides(
            spread(kernel_size, self.dims, "kernel_size"),
            spread(stride, self.dims, "stride"),
            spread(padding, self.dims, "padding"),
            spread(output_padding, self.dims, "output_padding"),
            spread(dilation, self.dims, "dilation"),
            groups,
        )
        for extra, step, gap in zip(
            self.strides.output_padding, self.strides.stride, self.strides.dilation, strict=True
        ):
            if not 0 <= extra < max(step, gap):
                raise ValueError(
                    f"output_padding {extra} is not below stride {step} or dilation {gap}; "
                    f"use 0 to {max(step, gap) - 1}"
                )
        kernel = self.strides.kernel_size
        # torch takes axis 1 of its weight for the inputs, which here are the outputs.
        init = uniform_fan_in(out_channels // groups * math.prod(kernel))
        self.kernel = nnx.Param(init(rngs.params(), (*kernel, out_channels // groups, in_channels)))
        self.bias = nnx.data(nnx.Param(init(rngs.params(), (out_channels,))) if bias else None)

    def __call__(self, x: Float[Array, "*b_x i"]) -> Float[Array, "*b_y o"]:
        spatial = x.shape[-1 - self.dims : -1]
        if x.ndim < self.dims + 1:
            raise ValueError(f"input {x.shape} has fewer than {self.dims + 1} axes")
        if min(self.strides.lengths(spatial)) < 1:
            raise ValueError(
                f"an input of {spatial} pixels leaves an output of "
                f"{self.strides.lengths(spatial)}; use a larger input or less padding "
                f"(now {self.strides.padding})"
            )
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = promote_dtype((x, self.kernel[...], bias))
        batch = x.shape[: -1 - self.dims]
        y = _conv_transpose(
            self.strides, x.reshape(math.prod(batch), *spatial, x.shape[-1]), kernel
        )
        y = y.reshape(*batch, *y.shape[1:])
        return y if bias is None else y + lifted(bias, y.ndim)


class ConvTranspose1d(_ConvTranspose):
    """torch.nn.ConvTranspose1d on arrays (b, l, c).

    >>> import jax.numpy as jnp
    >>> layer = ConvTranspose1d(3, 8, 4, stride=2, padding=1, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 10, 3))).shape
    (2, 20, 8)
    """

    dims = 1


class ConvTranspose2d(_ConvTranspose):
    """torch.nn.ConvTranspose2d on arrays (b, h, w, c).

    >>> import jax.numpy as jnp
    >>> layer = ConvTranspose2d(6, 2, 2, stride=2, groups=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 4, 5, 6))).shape
    (2, 8, 10, 2)
    """

    dims = 2


class ConvTranspose3d(_ConvTranspose):
    """torch.nn.ConvTranspose3d on arrays (b, d, h, w, c).

    >>> import jax.numpy as jnp
    >>> layer = ConvTranspose3d(1, 2, 3, stride=2, output_padding=1, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 2, 3, 4, 1))).shape
    (2, 6, 8, 10, 2)
    """

    dims = 3
