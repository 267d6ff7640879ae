"""Layers that only rearrange or crop, channels last: torch.nn's, and torchvision's CenterCrop.

Axes: b batch, x every spatial axis, h w pixels, r s pixels of one block, c channels, f features.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Shaped


def lifted(x: Shaped[Array, "..."], ndim: int) -> Shaped[Array, "..."]:
    """An array with axes of length 1 in front, as many as it lacks to so many axes.

    Arrays of several ranks then meet as `jax_numpy_rank_promotion="raise"` wants it.

    >>> import jax.numpy as jnp
    >>> lifted(jnp.ones(3), 4).shape
    (1, 1, 1, 3)
    """
    return jnp.expand_dims(x, range(ndim - x.ndim))


class Flatten(nnx.Module):
    """Neighbouring axes in one, in torch's order: channels outermost.

    A dense layer behind it then has the same weight matrix in both frameworks.

    Args:
        start_dim: the first of the axes, counted in torch's layout (b, c, *x).
        end_dim: the last of them. The result, where it has three axes or more, again holds
            last what torch holds at axis 1.

    Raises:
        ValueError: a start_dim of 0, which would mix the batch with the channels, or one
            behind end_dim.

    >>> import jax.numpy as jnp
    >>> Flatten()(jnp.arange(8.0).reshape(1, 2, 2, 2))[0].tolist()
    [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]
    >>> Flatten(2)(jnp.ones((2, 4, 5, 3))).shape
    (2, 20, 3)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        if start_dim == 0:
            raise ValueError("start_dim 0 is the batch; use 1 or more, or a negative one")
        self.start_dim = start_dim
        self.end_dim = end_dim

    def __call__(self, x: Float[Array, "b *x c"]) -> Float[Array, "b ..."]:
        if (self.start_dim, self.end_dim) == (1, -1):
            return rearrange(x, "b ... c -> b (c ...)")
        start, end = self.start_dim % x.ndim, self.end_dim % x.ndim
        if not 1 <= start <= end:
            raise ValueError(
                f"start_dim {self.start_dim} and end_dim {self.end_dim} of an input of {x.ndim} "
                f"axes name no axes behind the batch; use 1 <= start_dim <= end_dim"
            )
        x = rearrange(x, "b ... c -> b c ...")
        x = x.reshape(*x.shape[:start], -1, *x.shape[end + 1 :])
        return x if x.ndim == 2 else rearrange(x, "b c ... -> b ... c")


class Unflatten(nnx.Module):
    """A row of features as a map, channels last: the inverse of `Flatten`.

    The features are read in torch's order, channels outermost, and are laid out as Flax has
    them: (b, c h w) becomes (b, h, w, c).

    Args:
        dim: the axis that is split; 1 is all there is, as inputs are (b, f).
        unflattened_size: (c, *x), in torch's order.

    Raises:
        ValueError: another dim, or a size that the features do not fill.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(30.0).reshape(1, 2, 5, 3)
    >>> bool((Unflatten(1, (3, 2, 5))(Flatten()(x)) == x).all())
    True
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        if dim not in (1, -1):
            raise ValueError(f"dim {dim} cannot be split; use 1, the features of (b, f)")
        self.unflattened_size = tuple(unflattened_size)

    def __call__(self, x: Shaped[Array, "b f"]) -> Shaped[Array, "b *x c"]:
        if math.prod(self.unflattened_size) != x.shape[1]:
            raise ValueError(
                f"unflattened_size {self.unflattened_size} has "
                f"{math.prod(self.unflattened_size)} entries, the input {x.shape[1]} features"
            )
        return rearrange(x.reshape(-1, *self.unflattened_size), "b c ... -> b ... c")


class CenterCrop(nnx.Module):
    """The middle of an image; zeros are added where it is larger than the image.

    Args:
        height: of the output in pixels.
        width: of the output in pixels.

    Source: torchvision.transforms.CenterCrop. An odd pixel is cut where Python rounds
    (half to even) and is added at the end.

    >>> import jax.numpy as jnp
    >>> CenterCrop(2, 3)(jnp.arange(5.0).reshape(1, 1, 5, 1))[0, :, :, 0].tolist()
    [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]
    """

    def __init__(self, height: int, width: int) -> None:
        if min(height, width) < 1:
            raise ValueError(f"size {(height, width)} is too small; use 1 pixel or more")
        self.height = height
        self.width = width

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b y x c"]:
        pads = [(0, 0, 0)] * x.ndim
        for axis, wanted in ((-3, self.height), (-2, self.width)):
            spare = x.shape[axis] - wanted
            start = round(spare / 2) if spare > 0 else -(-spare // 2)
            pads[axis] = (-start, start - spare, 0)
        return lax.pad(x, x.dtype.type(0), pads)


class PixelShuffle(nnx.Module):
    """Channels become blocks of pixels (Shi et al. 2016, arXiv 1609.05158).

    Args:
        upscale_factor: height and width of a block, r.

    Raises:
        ValueError: channels that r * r does not divide.

    Source: torch.nn.PixelShuffle.

    >>> import jax.numpy as jnp
    >>> PixelShuffle(2)(jnp.arange(4.0).reshape(1, 1, 1, 4))[0, :, :, 0].tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """

    def __init__(self, upscale_factor: int) -> None:
        if upscale_factor < 1:
            raise ValueError(f"upscale_factor {upscale_factor} is too small; use 1 or more")
        self.upscale_factor = upscale_factor

    def __call__(self, x: Float[Array, "*b h w i"]) -> Float[Array, "*b y x o"]:
        r = self.upscale_factor
        if x.shape[-1] % r**2:
            raise ValueError(
                f"{x.shape[-1]} channels are not a multiple of {r**2}, the square of "
                f"upscale_factor {r}"
            )
        return rearrange(x, "... h w (c r s) -> ... (h r) (w s) c", r=r, s=r)


class PixelUnshuffle(nnx.Module):
    """Blocks of pixels become channels: the inverse of `PixelShuffle`.

    Args:
        downscale_factor: height and width of a block, r.

    Raises:
        ValueError: height or width that r does not divide.

    Source: torch.nn.PixelUnshuffle.

    >>> import jax.numpy as jnp
    >>> PixelUnshuffle(2)(jnp.arange(4.0).reshape(1, 2, 2, 1))[0, 0, 0].tolist()
    [0.0, 1.0, 2.0, 3.0]
    """

    def __init__(self, downscale_factor: int) -> None:
        if downscale_factor < 1:
            raise ValueError(f"downscale_factor {downscale_factor} is too small; use 1 or more")
        self.downscale_factor = downscale_factor

    def __call__(self, x: Float[Array, "*b h w i"]) -> Float[Array, "*b y x o"]:
        r = self.downscale_factor
        if x.shape[-3] % r or x.shape[-2] % r:
            raise ValueError(
                f"height and width {x.shape[-3:-1]} are not multiples of downscale_factor {r}"
            )
        return rearrange(x, "... (h r) (w s) c -> ... h w (c r s)", r=r, s=r)
