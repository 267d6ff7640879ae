"""torch.nn.Embedding and EmbeddingBag. Axes: b batch or bags, n entries of a bag, d features.

An index out of range raises, as in torch, where its value is known; inside `jax.jit` it gives
a row of NaN.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from flaxnets.layers.init import normal

MODES = ("sum", "mean", "max")


class _Table(nnx.Module):
    """The rows that both layers look up."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        max_norm: float | None,
        rngs: nnx.Rngs,
    ) -> None:
        if max_norm is not None:
            raise ValueError(
                f"max_norm {max_norm} would change weights in the forward pass; use None and "
                "rescale the weights in the training step"
            )
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"padding_idx {padding_idx} is not one of {num_embeddings} rows")
        weight = normal()(rngs.params(), (num_embeddings, embedding_dim))
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        if self.padding_idx is not None:
            weight = weight.at[self.padding_idx].set(0)
        self.weight = nnx.Param(weight)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim

    def _rows(self, indices: Array) -> Array:
        if not isinstance(indices, jax.core.Tracer) and indices.size:
            seen = np.asarray(indices)  # JAX would trace its minimum inside jit
            lowest, highest = int(seen.min()), int(seen.max())
            if lowest < 0 or highest >= self.num_embeddings:
                raise ValueError(
                    f"{type(self).__name__}: index {lowest if lowest < 0 else highest} is not "
                    f"one of {self.num_embeddings} rows; use 0 to {self.num_embeddings - 1}"
                )
        return (
            self.weight[...]
            .at[indices]
            .get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        )


class Embedding(_Table):
    """Rows of a learned table, by index.

    Args:
        num_embeddings: rows of the table.
        embedding_dim: size of a row.
        padding_idx: a row that starts at zero and gets no gradient from a look-up.
        max_norm: not supported; only None.
        rngs: source of the initial weights, N(0, 1).

    Raises:
        ValueError: a `max_norm`, a `padding_idx` or, outside `jax.jit`, an index that is out
            of range; inside, such an index gives a row of NaN.

    Source: torch.nn.Embedding.

    >>> Embedding(10, 3, padding_idx=0, rngs=nnx.Rngs(0))(jnp.zeros((1, 2), int)).tolist()
    [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx, max_norm, rngs)

    def __call__(self, indices: Int[Array, "*b"]) -> Float[Array, "*b d"]:
        rows = self._rows(indices)
        if self.padding_idx is None:
            return rows
        padding = (indices == self.padding_idx)[..., None]
        return jnp.where(padding, jax.lax.stop_gradient(rows), rows)

    def attend(self, query: Float[Array, "*b d"]) -> Float[Array, "*b n"]:
        """Products with every row: an output layer that shares these weights."""
        return query @ self.weight[...].T


class EmbeddingBag(_Table):
    """Sums, means or maxima of rows of a learned table.

    Args:
        num_embeddings: rows of the table.
        embedding_dim: size of a row.
        max_norm: not supported; only None.
        mode: "sum", "mean" or "max" of the rows of a bag; an empty bag gives zeros.
        include_last_offset: whether the last of the offsets is the end of the last bag.
        padding_idx: a row that starts at zero, does not count in a bag and gets no gradient.
        rngs: source of the initial weights, N(0, 1).

    Raises:
        ValueError: a `max_norm`, an unknown `mode`, a `padding_idx` or, outside `jax.jit`, an
            index out of range (inside it gives NaN), or arguments that do not go together.

    Source: torch.nn.EmbeddingBag.

    >>> bag = EmbeddingBag(10, 3, mode="sum", rngs=nnx.Rngs(0))
    >>> bag(jnp.array([1, 2, 3]), jnp.array([0, 2])).shape
    (2, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        *,
        mode: str = "mean",
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is unknown; use {', '.join(MODES)}")
        super().__init__(num_embeddings, embedding_dim, padding_idx, max_norm, rngs)
        self.mode = mode
        self.include_last_offset = include_last_offset

    def __call__(
        self,
        indices: Int[Array, "b n"] | Int[Array, "n"],
        offsets: Int[Array, "o"] | None = None,
        per_sample_weights: Float[Array, "*w"] | None = None,
    ) -> Float[Array, "b_ d"]:
        """Reduce every bag.

        Args:
            indices: a bag a row, or all bags in one row.
            offsets: where in that one row each bag begins, the first at 0.
            per_sample_weights: factors of the rows, for mode "sum".
        """
        if per_sample_weights is not None and self.mode != "sum":
            raise ValueError(f"per_sample_weights need mode 'sum', not {self.mode!r}")
        if per_sample_weights is not None and per_sample_weights.shape != indices.shape:
            raise ValueError(
                f"per_sample_weights {per_sample_weights.shape} are not of the shape "
                f"{indices.shape} of the indices"
            )
        bag, bags = self._bags(indices, offsets)
        indices = indices.ravel()
        rows = self._rows(indices)
        # What is padding, or lies behind the last offset, goes to no bag: segment `bags`.
        if self.padding_idx is not None:
            bag = jnp.where(indices == self.padding_idx, bags, bag)
        if per_sample_weights is not None:
            rows = rows * per_sample_weights.reshape(-1, 1)
        if self.mode == "max":
            return _maxima(rows, bag, bags)
        total = jax.ops.segment_sum(rows, bag, bags + 1)[:-1]
        if self.mode == "sum":
            return total
        count = jax.ops.segment_sum(jnp.ones_like(bag), bag, bags + 1)[:-1]
        return total / jnp.maximum(count, 1)[:, None].astype(total.dtype)

    def _bags(self, indices: Array, offsets: Array | None) -> tuple[Array, int]:
        """The bag of every index, in reading order, and how many bags there are."""
        if indices.ndim == 2:
            if offsets is not None:
                raise ValueError(f"offsets go with one row of indices, not with {indices.shape}")
            return jnp.repeat(jnp.arange(indices.shape[0]), indices.shape[1]), indices.shape[0]
        if offsets is None:
            raise ValueError(f"indices {indices.shape} in one row need offsets")
        if not isinstance(offsets, jax.core.Tracer) and np.any(first := np.asarray(offsets)[:1]):
            raise ValueError(f"the first of the offsets is {first[0]}; use 0")
        places = jnp.arange(indices.shape[0])
        bag = jnp.searchsorted(offsets.astype(int), places, side="right") - 1
        return bag, offsets.shape[0] - self.include_last_offset


def _maxima(rows: Array, bag: Array, bags: int) -> Array:
    """The largest entries of every bag; the first of equal ones gets the gradient, as in torch."""
    fixed = jax.lax.stop_gradient(rows)
    largest = jax.ops.segment_max(fixed, bag, bags + 1)
    places = jnp.arange(len(rows))[:, None]
    at_largest = (fixed == largest[bag]) | jnp.isnan(fixed)
    first = jax.ops.segment_min(jnp.where(at_largest, places, len(rows)), bag, bags + 1)[:-1]
    empty = first >= len(rows)
    found = jnp.take_along_axis(rows, jnp.where(empty, 0, first), axis=0)
    return jnp.where(empty, 0, found)
