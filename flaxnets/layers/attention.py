"""torch.nn's attention: Vaswani et al. 2017, "Attention is all you need", arXiv 1706.03762.

Axes: b batch, t queries, s keys and values, h heads, d features of a head, e k v features.
"""

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax import lax
from jax.extend import backend
from jaxtyping import Array, Bool, Float

from flaxnets.layers.dropout import Dropout
from flaxnets.layers.init import normal, xavier_uniform
from flaxnets.layers.linear import Linear
from flaxnets.layers.shape import lifted

_taken: ContextVar[set[str] | None] = ContextVar("_taken", default=None)


@contextlib.contextmanager
def kernels_taken(taken: set[str]) -> Iterator[None]:
    """While open, gathers the names of the kernels that `attend` computes, or is traced, with.

    Args:
        taken: gets the names, see `attention_kernel`.

    >>> taken = set()
    >>> with kernels_taken(taken):
    ...     _ = attend(*3 * [jnp.ones((1, 2, 1, 8))])
    >>> taken
    {'xla'}
    """
    before = _taken.set(taken)
    try:
        yield
    finally:
        _taken.reset(before)


def attend(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s h d"],
    value: Float[Array, "b s h d"],
    mask: Bool[Array, "#b #h #t #s"] | None = None,
    bias: Float[Array, "#b #h #t #s"] | None = None,
    *,
    is_causal: bool = False,
    dropout: float = 0.0,
    rngs: nnx.Rngs | None = None,
) -> Float[Array, "b t h d"]:
    """Means of the values, weighted by how well their keys fit each query.

    A query that may look nowhere gets zeros. Without dropout it is `jax.nn.dot_product_attention`,
    except in float64, of which that would take the softmax in float32.

    Args:
        query: what looks.
        key: what is looked at.
        value: what is returned.
        mask: True where a query may look at a key.
        bias: added to the scores; minus infinity is as good as a mask.
        is_causal: whether query i sees the keys up to i only.
        dropout: the share of the weights that is zeroed; 0 in evaluation.
        rngs: draws it.

    Raises:
        ValueError: dropout without `rngs`.

    Source: torch.nn.functional.scaled_dot_product_attention.

    >>> x = jnp.arange(6.0).reshape(1, 3, 1, 2)
    >>> attend(x, x, x, is_causal=True)[0, 0, 0].tolist()
    [0.0, 1.0]
    """
    if bias is not None:
        finite = bias > -jnp.inf
        bias = jnp.where(finite, bias, 0)
        mask = finite if mask is None else mask & finite
    looks = None  # whether a query may look anywhere
    if mask is not None:
        if is_causal:
            mask = mask & jnp.tri(query.shape[1], key.shape[1], dtype=bool)[None, None]
            is_causal = False
        looks = mask.any(-1, keepdims=True)
        mask = mask | ~looks
    kernel = attention_kernel(
        query.shape,
        key.shape,
        query.dtype,
        masked=mask is not None,
        biased=bias is not None,
        dropout=dropout,
    )
    if (taken := _taken.get()) is not None:
        taken.add(kernel)
    if dropout == 0 and query.dtype != jnp.float64:
        compute = _cudnn if kernel == "cudnn" else _xla
        y = compute(query, key, value, bias, mask, is_causal)
    else:
        if is_causal:
            mask = jnp.tri(query.shape[1], key.shape[1], dtype=bool)[None, None]
        weights = attention_weights(query, key, mask, bias)
        y = _weighted(Dropout(dropout)(weights, rngs=rngs), value)
    return y if looks is None else jnp.where(looks.swapaxes(1, 2), y, 0)


def attention_kernel(
    query_shape: Sequence[int],
    key_shape: Sequence[int],
    dtype: Any,
    *,
    masked: bool = False,
    biased: bool = False,
    dropout: float = 0.0,
    platform: str | None = None,
) -> Literal["cudnn", "xla"]:
    """What `attend` computes with: cuDNN's fused kernel, or XLA's products and softmax.

    cuDNN's is for half precision and heads of a multiple of 8 features, at most 128 (256 from
    compute capability 9.0 on); its own dropout draws other numbers than `jax.random`, and of a
    bias it has no gradient in every shape.

    Args:
        query_shape: (b, t, h, d).
        key_shape: (b, s, h, d).
        dtype: of both.
        masked: whether there is a mask, which needs even t and s.
        biased: whether something is added to the scores.
        dropout: the share of the weights that is zeroed.
        platform: "cuda", "cpu" or another of JAX's; None for the one that JAX runs on.

    >>> attention_kernel((2, 16, 4, 64), (2, 16, 4, 64), "bfloat16", platform="cuda")
    'cudnn'
    >>> attention_kernel((2, 16, 4, 64), (2, 16, 4, 64), "float32", platform="cuda")
    'xla'
    """
    capability = _compute_capability()
    if platform is not None:
        capability = (capability or (8, 0)) if platform == "cuda" else None
    if capability is None or capability < (8, 0) or biased or dropout:
        return "xla"
    features = query_shape[-1]
    even = query_shape[1] % 2 == key_shape[1] % 2 == 0
    fits = features % 8 == 0 and features <= (256 if capability >= (9, 0) else 128)
    half = jnp.dtype(dtype) in (jnp.float16, jnp.bfloat16)
    return "cudnn" if half and fits and (even or not masked) else "xla"


@functools.cache
def _compute_capability() -> tuple[int, ...] | None:
    """Of the NVIDIA GPU that JAX runs on; None elsewhere."""
    if "cuda" not in backend.get_backend().platform_version:
        return None
    return tuple(map(int, jax.devices()[0].compute_capability.split(".")))


def _xla(query, key, value, bias, mask, is_causal) -> Array:
    with jax.numpy_dtype_promotion("standard"):  # JAX's own code promotes half precision
        return jax.nn.dot_product_attention(query, key, value, bias, mask, is_causal=is_causal)


def _cudnn(query, key, value, bias, mask, is_causal) -> Array:
    """The fused kernel where the program runs on CUDA, since it may be lowered for others."""
    if mask is not None:  # whose shape cuDNN wants in full
        mask = jnp.broadcast_to(mask, (*mask.shape[:2], query.shape[1], key.shape[1]))

    def fused(query, key, value):
        with jax.numpy_dtype_promotion("standard"):
            return jax.nn.dot_product_attention(
                query, key, value, bias, mask, is_causal=is_causal, implementation="cudnn"
            )

    def written_out(query, key, value):
        return _xla(query, key, value, bias, mask, is_causal)

    return lax.platform_dependent(query, key, value, cuda=fused, default=written_out)


def attention_weights(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s h d"],
    mask: Bool[Array, "*#m"] | None = None,
    bias: Float[Array, "*#a"] | None = None,
) -> Float[Array, "b h t s"]:
    """How much each query takes of each key; NaN for one that may look nowhere.

    Args:
        query: what looks.
        key: what is looked at.
        mask: True where a query may look at a key, in a shape like that of the weights.
        bias: added to the scores, in a shape like that of the weights.

    >>> attention_weights(jnp.ones((1, 1, 1, 2)), jnp.ones((1, 4, 1, 2))).tolist()
    [[[[0.25, 0.25, 0.25, 0.25]]]]
    """
    wide = np.promote_types(query.dtype, np.float32)
    scale = 1 / math.sqrt(query.shape[-1])
    scores = jnp.einsum("bthd,bshd->bhts", query * scale, key, preferred_element_type=wide)
    if bias is not None:
        scores += lifted(bias.astype(wide), 4)
    if mask is not None:  # added, so that NaN goes on into the gradients as it does in torch
        scores += lifted(jnp.where(mask, 0, -jnp.inf).astype(wide), 4)
    return jax.nn.softmax(scores, axis=-1).astype(query.dtype)


def _weighted(weights: Array, value: Array) -> Array:
    return jnp.einsum("bhts,bshd->bthd", weights, value)


class MultiheadAttention(nnx.Module):
    """Attention in several subspaces at once, between projections that are learned.

    `nnx.view(model, deterministic=...)` switches between training (False) and evaluation.
    Weights have torch's names and layouts. In masks True, or minus infinity, means that a
    position is not looked at. A query that may look nowhere gets NaN if the weights are asked
    for and zeros, before the output's projection, if they are not.

    Args:
        embed_dim: features of queries and outputs.
        num_heads: subspaces, of embed_dim / num_heads features each.
        dropout: the share of the attention weights that is zeroed in training.
        bias: whether the projections have biases.
        add_bias_kv: whether one learned key and value is added to the others.
        add_zero_attn: whether one key and value of zeros is added to the others.
        kdim: features of the keys; None for embed_dim.
        vdim: features of the values; None for embed_dim.
        batch_first: whether arrays are (b, t, e), not (t, b, e).
        rngs: source of the initial weights.

    Raises:
        ValueError: sizes below 1 or that heads do not divide, dropout outside [0, 1]; arrays
            and masks that do not fit each other; a call in training without `rngs`.

    Source: torch.nn.MultiheadAttention.

    >>> layer = MultiheadAttention(6, 2, batch_first=True, rngs=nnx.Rngs(0))
    >>> x = jnp.ones((4, 5, 6))
    >>> y, weights = layer(x, x, x)
    >>> y.shape, weights.shape
    ((4, 5, 6), (4, 5, 5))
    """

    q_proj_weight: Any  # None where `in_proj_weight` holds all three
    k_proj_weight: Any
    v_proj_weight: Any

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        kdim = embed_dim if kdim is None else kdim
        vdim = embed_dim if vdim is None else vdim
        sizes = {"embed_dim": embed_dim, "num_heads": num_heads, "kdim": kdim, "vdim": vdim}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} {size} is too small; use 1 or more")
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout {dropout} is out of range; use 0 to 1")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.add_zero_attn = add_zero_attn
        self.kdim = kdim
        self.vdim = vdim
        self.batch_first = batch_first
        self.deterministic = False

        def matrix(*shape: int) -> nnx.Param:
            return nnx.Param(xavier_uniform()(rngs.params(), shape))

        def entry() -> nnx.Param:
            return nnx.Param(normal(embed_dim**-0.5)(rngs.params(), (1, 1, embed_dim)))

        packed = kdim == vdim == embed_dim
        self.in_proj_weight = nnx.data(matrix(3 * embed_dim, embed_dim) if packed else None)
        self.q_proj_weight = nnx.data(None if packed else matrix(embed_dim, embed_dim))
        self.k_proj_weight = nnx.data(None if packed else matrix(embed_dim, kdim))
        self.v_proj_weight = nnx.data(None if packed else matrix(embed_dim, vdim))
        self.in_proj_bias = nnx.data(
            nnx.Param(jnp.zeros(3 * embed_dim, jnp.float32)) if bias else None
        )
        self.bias_k = nnx.data(entry() if add_bias_kv else None)
        self.bias_v = nnx.data(entry() if add_bias_kv else None)
        self.out_proj = Linear(embed_dim, embed_dim, bias, rngs=rngs)
        if self.out_proj.bias is not None:
            self.out_proj.bias.set_value(jnp.zeros_like(self.out_proj.bias[...]))

    def set_view(self, deterministic: bool | None = None) -> None:
        """Switch between training and evaluation, for `nnx.view`.

        Args:
            deterministic: True in evaluation, where nothing is zeroed.
        """
        if deterministic is not None:
            self.deterministic = deterministic

    def __call__(
        self,
        query: Float[Array, "... e"],
        key: Float[Array, "... k"],
        value: Float[Array, "... v"],
        key_padding_mask: Array | None = None,
        need_weights: bool = True,
        attn_mask: Array | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "... e"], Float[Array, "..."] | None]:
        """Outputs and, where they are asked for, attention weights.

        Args:
            query: (t, b, e), with `batch_first` (b, t, e), or (t, e) without a batch.
            key: (s, b, k), with `batch_first` (b, s, k), or (s, k).
            value: (s, b, v), with `batch_first` (b, s, v), or (s, v).
            key_padding_mask: (b, s) or (s,), boolean (True: not looked at) or added to scores.
            need_weights: whether the weights are returned, (b, t, s) or (t, s).
            attn_mask: (t, s) or (b * heads, t, s), boolean (True: not looked at) or added.
            average_attn_weights: False for the weights of every head, (b, h, t, s).
            is_causal: a promise that `attn_mask` hides what comes after each query, so that
                another one need not be looked at.
            rngs: draws the dropout in training.
        """
        self._check(query, key, value)
        axes = "t" if query.ndim == 2 else "b t" if self.batch_first else "t b"
        batched = "1 t h d" if query.ndim == 2 else "b t h d"
        q, k, v = (
            rearrange(x, f"{axes} (h d) -> {batched}", h=self.num_heads)
            for x in self._project(query, key, value)
        )
        mask, bias = self._masks(q, k, attn_mask, key_padding_mask, batched=query.ndim == 3)
        if is_causal and attn_mask is None:
            raise ValueError("is_causal is a promise about attn_mask, which is None; give that too")
        is_causal = is_causal and key_padding_mask is None and not need_weights
        if is_causal:
            mask = bias = None
        k, v = self._extended(k, self.bias_k), self._extended(v, self.bias_v)
        dropout = 0.0 if self.deterministic else self.dropout
        if need_weights:
            weights = Dropout(dropout)(attention_weights(q, k, mask, bias), rngs=rngs)
            y = _weighted(weights, v)
        else:
            y = attend(q, k, v, mask, bias, is_causal=is_causal, dropout=dropout, rngs=rngs)
        y = rearrange(y, f"{batched} -> {axes} (h d)") @ self.out_proj.kernel[...]
        if self.out_proj.bias is not None:
            y += lifted(self.out_proj.bias[...], y.ndim)
        if not need_weights:
            return y, None
        weights = weights.mean(1) if average_attn_weights else weights
        return y, weights[0] if query.ndim == 2 else weights

    def _check(self, query: Array, key: Array, value: Array) -> None:
        """Refuse inputs that do not fit the layer or each other."""
        sizes = {"query": self.embed_dim, "key": self.kdim, "value": self.vdim}
        arrays = {"query": query, "key": key, "value": value}
        for name, x in arrays.items():
            if x.ndim not in (2, 3) or x.ndim != query.ndim:
                raise ValueError(f"{name} {x.shape} has {x.ndim} axes; use 3, or 2 for all three")
            if x.shape[-1] != sizes[name]:
                raise ValueError(f"{name} {x.shape} has {x.shape[-1]} features, not {sizes[name]}")
        if key.shape[:-1] != value.shape[:-1]:
            raise ValueError(f"key {key.shape} and value {value.shape} differ in length or batch")
        batch = 0 if self.batch_first else 1
        if query.ndim == 3 and query.shape[batch] != key.shape[batch]:
            raise ValueError(f"query {query.shape} and key {key.shape} differ in batch")

    def _project(self, query: Array, key: Array, value: Array) -> Sequence[Array]:
        """The three arrays, each with embed_dim features."""
        biases = None if self.in_proj_bias is None else self.in_proj_bias[...]
        if self.in_proj_weight is None:
            separate = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
            matrices = [weight[...] for weight in separate]
        elif query is key and key is value:  # one product for all
            y = query @ self.in_proj_weight[...].T
            return jnp.split(y if biases is None else y + lifted(biases, y.ndim), 3, -1)
        else:
            matrices = jnp.split(self.in_proj_weight[...], 3)
        projected = [x @ w.T for x, w in zip((query, key, value), matrices, strict=True)]
        if biases is None:
            return projected
        split = jnp.split(biases, 3)
        return [x + lifted(b, x.ndim) for x, b in zip(projected, split, strict=True)]

    def _masks(
        self,
        q: Array,
        k: Array,
        attn_mask: Array | None,
        key_padding_mask: Array | None,
        *,
        batched: bool,
    ) -> tuple[Array | None, Array | None]:
        """Both masks as one of where to look and one to add, in shapes like (b, h, t, s)."""
        (b, t, h, _), s = q.shape, k.shape[1]
        _check_mask("attn_mask", attn_mask, (t, s), (b * h, t, s))
        _check_mask("key_padding_mask", key_padding_mask, (b, s) if batched else (s,))
        masks = []
        if attn_mask is not None:
            masks.append(attn_mask.reshape(-1, h if attn_mask.ndim == 3 else 1, t, s))
        if key_padding_mask is not None:
            masks.append(key_padding_mask.reshape(b, 1, 1, s))
        looked_at = [~m for m in masks if m.dtype == bool]
        added = [m for m in masks if m.dtype != bool]
        widths = [(0, 0)] * 3 + [(0, (self.bias_k is not None) + self.add_zero_attn)]
        mask = functools.reduce(jnp.logical_and, looked_at) if looked_at else None
        bias = functools.reduce(jnp.add, added) if added else None
        return (
            mask if mask is None else jnp.pad(mask, widths, constant_values=True),
            bias if bias is None else jnp.pad(bias, widths),
        )

    def _extended(self, x: Array, entry: nnx.Param | None) -> Array:
        """Keys or values with the learned one and the one of zeros behind them."""
        b, _, h, d = x.shape
        entries = [x]
        if entry is not None:
            entries.append(jnp.broadcast_to(entry[...].reshape(1, 1, h, d), (b, 1, h, d)))
        if self.add_zero_attn:
            entries.append(jnp.zeros((b, 1, h, d), x.dtype))
        return jnp.concatenate(entries, 1) if len(entries) > 1 else x


def _check_mask(name: str, mask: Array | None, *shapes: tuple[int, ...]) -> None:
    if mask is None:
        return
    if mask.shape not in shapes:
        raise ValueError(f"{name} has shape {mask.shape}; use {' or '.join(map(str, shapes))}")
    if mask.dtype != bool and not jnp.issubdtype(mask.dtype, jnp.floating):
        raise ValueError(f"{name} has dtype {mask.dtype}; use bool or a floating one")
