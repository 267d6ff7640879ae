"""torch.nn.Conv1d, Conv2d and Conv3d on `flax.nnx.Conv`, channels last.

Axes: b batch, x every spatial axis, c channels.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from flaxnets.layers.init import uniform_fan_in
from flaxnets.layers.strided import Window, convolve

PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def spread(value: int | Sequence[int], dims: int, name: str) -> tuple[int, ...]:
    """One number for every spatial axis, from one number or as many as there are axes."""
    values = (value,) * dims if isinstance(value, int) else tuple(value)
    if len(values) != dims:
        raise ValueError(f"{name} {value} has {len(values)} entries; use 1 or {dims}")
    return values


def _convolve(
    x: Array,
    kernel: Array,
    stride: tuple[int, ...],
    padding: str | Sequence[tuple[int, int]],
    *,
    rhs_dilation: tuple[int, ...],
    feature_group_count: int,
    dimension_numbers: lax.ConvDimensionNumbers,
    lhs_dilation: tuple[int, ...],
    **options: Any,
) -> Array:
    """`lax.conv_general_dilated`, where a stride is all that is special with fast gradients."""
    plain = padding != "SAME" and all(option is None for option in options.values())
    if plain and max(stride) > 1 == max(lhs_dilation):
        ends = [(0, 0)] * len(stride) if isinstance(padding, str) else padding
        pads = tuple((low, high) for low, high in ends)
        return convolve(Window(stride, pads, rhs_dilation, feature_group_count), x, kernel)
    return lax.conv_general_dilated(
        x,
        kernel,
        stride,
        padding,
        lhs_dilation,
        rhs_dilation,
        dimension_numbers,
        feature_group_count,
        **options,
    )


class _Conv(nnx.Conv):
    """Cross-correlation over `dims` spatial axes.

    Args:
        in_channels: of the input, its last axis.
        out_channels: of the output.
        kernel_size: in pixels, one number or one for every spatial axis; likewise
            `stride`, `padding` and `dilation`.
        stride: pixels between two windows.
        padding: pixels added at both ends, or "valid" (none) or "same" (output as large as
            the input; an odd number of pixels has its larger half at the end).
        dilation: pixels between two taps of the kernel.
        groups: blocks of channels that do not see each other.
        bias: whether one is added.
        padding_mode: what the added pixels hold.
        rngs: source of the initial weights.

    Raises:
        ValueError: channels that the groups do not divide, or "same" with a stride.
    """

    dims: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        rngs: nnx.Rngs,
    ) -> None:
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(f"{name} {channels} is not a multiple of groups {groups}")
        kernel = spread(kernel_size, self.dims, "kernel_size")
        strides = spread(stride, self.dims, "stride")
        dilations = spread(dilation, self.dims, "dilation")
        if padding == "same":
            if max(strides) > 1:
                raise ValueError(f"padding 'same' needs stride 1, not {stride}")
            totals = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
            pads = [(total // 2, total - total // 2) for total in totals]
        else:
            if isinstance(padding, str) and padding != "valid":
                raise ValueError(f"padding {padding!r} is unknown; use 'valid', 'same' or numbers")
            ends = spread(0 if isinstance(padding, str) else padding, self.dims, "padding")
            pads = [(end, end) for end in ends]
        if padding_mode != "zeros" and padding_mode not in PAD_MODES:
            raise ValueError(
                f"padding_mode {padding_mode!r} is unknown; use zeros, {', '.join(PAD_MODES)}"
            )
        init = uniform_fan_in(in_channels // groups * math.prod(kernel))
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            strides=strides,
            padding=pads if padding_mode == "zeros" else "VALID",
            kernel_dilation=dilations,
            feature_group_count=groups,
            use_bias=bias,
            kernel_init=init,
            bias_init=init,
            conv_general_dilated=_convolve,
            rngs=rngs,
        )
        self.padding_mode = padding_mode
        self.pads = tuple(pads)

    def __call__(self, inputs: Float[Array, "*b_x c"], out_sharding=None) -> Float[Array, "*y o"]:
        if self.padding_mode != "zeros":
            batch = [(0, 0)] * (inputs.ndim - self.dims - 1)
            mode = PAD_MODES[self.padding_mode]
            inputs = jnp.pad(inputs, [*batch, *self.pads, (0, 0)], mode=mode)
        return super().__call__(inputs, out_sharding)


class Conv1d(_Conv):
    """torch.nn.Conv1d on arrays (b, l, c).

    >>> import jax.numpy as jnp
    >>> Conv1d(3, 8, 5, stride=2, padding=2, rngs=nnx.Rngs(0))(jnp.ones((2, 20, 3))).shape
    (2, 10, 8)
    """

    dims = 1


class Conv2d(_Conv):
    """torch.nn.Conv2d on arrays (b, h, w, c).

    >>> import jax.numpy as jnp
    >>> Conv2d(1, 6, 5, rngs=nnx.Rngs(0))(jnp.ones((2, 32, 32, 1))).shape
    (2, 28, 28, 6)
    """

    dims = 2


class Conv3d(_Conv):
    """torch.nn.Conv3d on arrays (b, d, h, w, c).

    >>> import jax.numpy as jnp
    >>> Conv3d(1, 2, 3, padding="same", rngs=nnx.Rngs(0))(jnp.ones((2, 4, 5, 6, 1))).shape
    (2, 4, 5, 6, 2)
    """

    dims = 3
