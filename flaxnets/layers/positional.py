"""Where in a sequence an entry is, added to it. Axes: b batch, t time, d features."""

import functools
import math

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from flaxnets.layers.dropout import Dropout
from flaxnets.layers.init import normal
from flaxnets.layers.shape import lifted


@functools.lru_cache(maxsize=16)
def _sinusoids(length: int, d_model: int) -> np.ndarray:
    """Sines of the positions in the even columns, cosines in the odd ones, in float64."""
    rates = np.exp(np.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
    angles = np.arange(length)[:, None] * rates
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, -1)[:, :d_model]


class SinusoidalPositionalEncoding(nnx.Module):
    """Sines and cosines of the position, of wavelengths from 2 pi to 20000 pi, are added.

    Column 2i is sin(t / 10000^(2i / d_model)), column 2i + 1 the cosine of the same; with an odd
    d_model the last column is a sine. Nothing is learned. Dropout follows, as in the paper.

    Args:
        d_model: features.
        max_len: entries of the longest sequence.
        dropout: the share that is zeroed in training.

    Raises:
        ValueError: sizes below 1, dropout outside [0, 1], an input that is too long or has other
            features; a call in training without `rngs`.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5.

    >>> layer = SinusoidalPositionalEncoding(4, max_len=10, dropout=0.0)
    >>> layer(jnp.zeros((1, 2, 4))).round(2).tolist()
    [[[0.0, 1.0, 0.0, 1.0], [0.8399999737739563, 0.5399999618530273, 0.009999999776482582, 1.0]]]
    """

    def __init__(self, d_model: int, max_len: int, dropout: float = 0.1) -> None:
        _check_sizes(d_model, max_len)
        self.d_model = d_model
        self.max_len = max_len
        self.dropout = Dropout(dropout)

    def __call__(
        self, x: Float[Array, "*b t d"], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "*b t d"]:
        _check_input(self, x)
        table = jnp.asarray(_sinusoids(x.shape[-2], self.d_model), x.dtype)
        return self.dropout(x + lifted(table, x.ndim), rngs=rngs)


class LearnedPositionalEncoding(nnx.Module):
    """A learned vector for each position is added.

    Args:
        d_model: features.
        max_len: entries of the longest sequence.
        dropout: the share that is zeroed in training.
        rngs: source of the initial weight, N(0, 1), as in an Embedding.

    Raises:
        ValueError: as `SinusoidalPositionalEncoding`.

    Source: Gehring et al. 2017, arXiv 1705.03122, section 3.1.

    >>> layer = LearnedPositionalEncoding(4, max_len=10, dropout=0.0, rngs=nnx.Rngs(0))
    >>> layer(jnp.zeros((2, 5, 4))).shape
    (2, 5, 4)
    """

    def __init__(self, d_model: int, max_len: int, dropout: float = 0.1, *, rngs: nnx.Rngs) -> None:
        _check_sizes(d_model, max_len)
        self.d_model = d_model
        self.max_len = max_len
        self.weight = nnx.Param(normal()(rngs.params(), (max_len, d_model)))
        self.dropout = Dropout(dropout)

    def __call__(
        self, x: Float[Array, "*b t d"], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "*b t d"]:
        _check_input(self, x)
        return self.dropout(x + lifted(self.weight[: x.shape[-2]], x.ndim), rngs=rngs)


def _check_sizes(d_model: int, max_len: int) -> None:
    for name, size in (("d_model", d_model), ("max_len", max_len)):
        if size < 1:
            raise ValueError(f"{name} {size} is too small; use 1 or more")


def _check_input(layer: SinusoidalPositionalEncoding | LearnedPositionalEncoding, x: Array) -> None:
    name, shape = type(layer).__name__, f"input {x.shape}"
    if x.shape[-1] != layer.d_model:
        raise ValueError(f"{name}: {shape} has {x.shape[-1]} features, not {layer.d_model}")
    if x.shape[-2] > layer.max_len:
        raise ValueError(f"{name}: {shape} is longer than max_len {layer.max_len}")
