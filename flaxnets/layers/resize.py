"""torch.nn.Upsample, channels last.

Axes: b batch, x every spatial axis of the input, y of the output, c channels. Every mode is
separable and linear: along each axis a pixel of the output is a weighted sum of a few pixels of
the input, and in the gradient a pixel of the input is one of a few pixels of the output. Both
are written as gathers, since XLA's own gradient of a gather is a slow scatter.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

MODE_DIMS = {
    "nearest": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "bicubic": (2,),
    "trilinear": (3,),
}
CUBIC = -0.75  # torch's and OpenCV's; Keys (1981) and JAX have -0.5


class Resampling(NamedTuple):
    """What happens along one axis: lengths in pixels."""

    mode: str
    length: int
    size: int
    scale: float | None
    align_corners: bool

    def matrix(self) -> np.ndarray:
        """The weight of every input pixel (column) in every output pixel (row)."""
        if self.mode == "nearest":
            sources, weights = self._nearest()[:, None], np.ones((self.size, 1))
        elif self.mode == "bicubic":
            first, part = self._split(self._coordinates())
            sources = first[:, None] + np.arange(-1, 3)
            weights = np.stack(
                [_far(part + 1), _near(part), _near(1 - part), _far(2 - part)], axis=1
            )
        else:
            # torch copies where nothing changes in size, whatever the scale factor.
            same = self.size == self.length
            start = np.arange(self.size) if same else np.maximum(self._coordinates(), 0)
            first, part = self._split(start)
            sources = first[:, None] + np.arange(2)
            weights = np.stack([1 - part, part], axis=1)
        matrix = np.zeros((self.size, self.length))
        rows = np.arange(self.size)[:, None]
        np.add.at(matrix, (rows, np.clip(sources, 0, self.length - 1)), weights)
        return matrix

    def _nearest(self) -> np.ndarray:
        """The input pixel of every output pixel; torch computes it in float32."""
        step = np.float32(1 / self.scale if self.scale else self.length / self.size)
        # torch takes whole factors as they are, whatever the scale factor that led to them.
        if self.size in (self.length, 2 * self.length):
            step = np.float32(self.length / self.size)
        places = np.floor(np.arange(self.size, dtype=np.float32) * step)
        return np.minimum(places.astype(np.int64), self.length - 1)

    def _coordinates(self) -> np.ndarray:
        """Where every output pixel lies between the input's."""
        places = np.arange(self.size)
        if self.align_corners:
            return places * ((self.length - 1) / (self.size - 1) if self.size > 1 else 0.0)
        step = 1 / self.scale if self.scale else self.length / self.size
        return (places + 0.5) * step - 0.5

    def _split(self, coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The input pixel before a coordinate, and the way from it to the next one."""
        first = np.minimum(np.floor(coordinates).astype(np.int64), self.length - 1)
        return first, np.clip(coordinates - first, 0, 1)


def _near(x: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel at 0 <= x <= 1 (Keys 1981)."""
    return ((CUBIC + 2) * x - (CUBIC + 3)) * x**2 + 1


def _far(x: np.ndarray) -> np.ndarray:
    """The same at 1 <= x <= 2."""
    return ((x - 5) * x + 8) * CUBIC * x - 4 * CUBIC


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _resample(resampling: Resampling, transposed: bool, axis: int, x: Array) -> Array:
    """The matrix of one axis, or its transpose, times that axis."""
    matrix = resampling.matrix()
    matrix = matrix.T if transposed else matrix
    rows, columns = np.nonzero(matrix)
    counts = np.bincount(rows, minlength=len(matrix))
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (max(int(counts.max()), 1), len(matrix))
    sources, weights = np.zeros(shape, np.int32), np.zeros(shape)
    # Rows with fewer entries repeat their first, with weight 0, so that no other NaN gets in.
    sources[:, rows[places == 0]] = columns[places == 0]
    sources[places, rows], weights[places, rows] = columns, matrix[rows, columns]
    along = [1] * x.ndim
    along[axis] = len(matrix)
    total = jnp.zeros((), x.dtype)
    for source, weight in zip(sources, weights, strict=True):
        tap = jnp.take(x, source, axis, mode="clip")
        total = total + (
            tap if (weight == 1).all() else tap * weight.reshape(along).astype(x.dtype)
        )
    return total


def _forward(resampling: Resampling, transposed: bool, axis: int, x: Array) -> tuple[Array, None]:
    return _resample(resampling, transposed, axis, x), None


def _backward(
    resampling: Resampling, transposed: bool, axis: int, saved: None, dy: Array
) -> tuple[Array]:
    return (_resample(resampling, not transposed, axis, dy),)


_resample.defvjp(_forward, _backward)


class Upsample(nnx.Module):
    """An image of another size.

    Args:
        size: of the output in pixels, one number or one for every spatial axis.
        scale_factor: of the output to the input, likewise; the size is rounded down. Exactly
            one of the two is given.
        mode: "nearest", or "linear" (on (b, l, c)), "bilinear" or "bicubic" (on (b, h, w, c)),
            "trilinear" (on (b, d, h, w, c)).
        align_corners: whether the centres of the corner pixels stay where they are, in place
            of their outer corners; not for "nearest".
        recompute_scale_factor: whether the rounded size decides where pixels lie, in place of
            the scale_factor.

    Raises:
        ValueError: options that do not go together, or an input with other axes than the
            mode's.

    Source: torch.nn.Upsample. There is no antialiasing.

    >>> Upsample(scale_factor=2)(jnp.ones((2, 4, 5, 3))).shape
    (2, 8, 10, 3)
    >>> x = jnp.array([[[0.0], [1.0]]])
    >>> Upsample(size=4, mode="linear")(x)[0, :, 0].tolist()
    [0.0, 0.25, 0.75, 1.0]
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | int | Sequence[float | int] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        if (size is None) == (scale_factor is None):
            raise ValueError(f"size {size} and scale_factor {scale_factor}: give exactly one")
        if mode not in MODE_DIMS:
            raise ValueError(f"mode {mode!r} is unknown; use {', '.join(MODE_DIMS)}")
        if mode == "nearest" and align_corners is not None:
            raise ValueError(f"align_corners {align_corners} means nothing to 'nearest'; use None")
        if recompute_scale_factor and scale_factor is None:
            raise ValueError("recompute_scale_factor True needs a scale_factor, not a size")
        self.size = tuple(size) if isinstance(size, Sequence) else size
        self.scale_factor = (
            tuple(scale_factor) if isinstance(scale_factor, Sequence) else scale_factor
        )
        self.mode = mode
        self.align_corners = bool(align_corners)
        self.recompute_scale_factor = bool(recompute_scale_factor)

    def __call__(self, x: Float[Array, "b *x c"]) -> Float[Array, "b *y c"]:
        dims = x.ndim - 2
        if dims not in MODE_DIMS[self.mode]:
            wanted = " or ".join(str(count + 2) for count in MODE_DIMS[self.mode])
            raise ValueError(
                f"input {x.shape} has {x.ndim} axes; mode {self.mode!r} wants {wanted}"
            )
        # Numbers of two bytes are summed in four, as in torch.
        y = x.astype(np.promote_types(x.dtype, np.float32))
        for axis, resampling in enumerate(self._resamplings(x.shape[1:-1]), start=1):
            y = _resample(resampling, False, axis, y)
        return y.astype(x.dtype)

    def _resamplings(self, shape: tuple[int, ...]) -> list[Resampling]:
        """One for every spatial axis of an input."""
        scales = _each(self.scale_factor, len(shape), "scale_factor")
        sizes = _each(self.size, len(shape), "size")
        if self.scale_factor is not None:
            sizes = [int(length * scale) for length, scale in zip(shape, scales, strict=True)]
        if min(sizes) < 1 or min(shape) < 1:
            raise ValueError(f"an input of {shape} pixels cannot become one of {tuple(sizes)}")
        if self.recompute_scale_factor:
            scales = [None] * len(shape)
        return [
            Resampling(self.mode, length, size, scale, self.align_corners)
            for length, size, scale in zip(shape, sizes, scales, strict=True)
        ]


def _each(value, dims: int, name: str) -> list:
    values = list(value) if isinstance(value, tuple) else [value] * dims
    if len(values) != dims:
        raise ValueError(f"{name} {value} has {len(values)} entries; use 1 or {dims}")
    return values
