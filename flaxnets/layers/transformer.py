"""torch.nn's Transformer: Vaswani et al. 2017, "Attention is all you need", arXiv 1706.03762.

Masks are those of `MultiheadAttention`: True, or minus infinity, hides a position. Arrays are
(b, t, e) with `batch_first`, else (t, b, e), or (t, e) without a batch. Axes: b batch, s source,
t target, e features.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flaxnets.layers.attention import MultiheadAttention
from flaxnets.layers.dropout import Dropout
from flaxnets.layers.init import xavier_uniform
from flaxnets.layers.linear import Linear
from flaxnets.layers.normalization import LayerNorm

Activation = Callable[[Array], Array]


def _gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS: dict[str, Activation] = {"relu": jax.nn.relu, "gelu": _gelu}


class _Layer(nnx.Module):
    """What encoder and decoder layers share: attention to oneself and a network of two layers."""

    has_memory: ClassVar[bool] = False

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        sizes = {"d_model": d_model, "nhead": nhead, "dim_feedforward": dim_feedforward}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} {size} is too small; use 1 or more")
        if d_model % nhead:
            raise ValueError(f"d_model {d_model} is not a multiple of nhead {nhead}")
        if isinstance(activation, str):
            if activation not in ACTIVATIONS:
                known = ", ".join(ACTIVATIONS)
                raise ValueError(f"activation {activation!r} is unknown; use {known} or a function")
            activation = ACTIVATIONS[activation]
        self.d_model = d_model
        self.norm_first = norm_first
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout, bias, batch_first=batch_first, rngs=rngs
        )
        if self.has_memory:  # defined here, so that parameters come in torch's order
            self.multihead_attn = MultiheadAttention(
                d_model, nhead, dropout, bias, batch_first=batch_first, rngs=rngs
            )
        self.linear1 = Linear(d_model, dim_feedforward, bias, rngs=rngs)
        self.activation = activation
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, rngs=rngs)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)

    def _attend(
        self, layer: MultiheadAttention, x: Array, memory: Array, masks: dict, rngs: Any
    ) -> Array:
        return layer(x, memory, memory, need_weights=False, **masks, rngs=rngs)[0]

    def _feedforward(self, x: Array, rngs: Any) -> Array:
        return self.linear2(self.dropout(self.activation(self.linear1(x)), rngs=rngs))

    def _added(self, x: Array, norm: LayerNorm, block: Callable[[Array], Array]) -> Array:
        """A block beside a path that skips it, normalised before or after."""
        return x + block(norm(x)) if self.norm_first else norm(x + block(x))


def _masks(mask: Array | None, padding: Array | None, is_causal: bool) -> dict[str, Any]:
    return {"attn_mask": mask, "key_padding_mask": padding, "is_causal": is_causal}


class TransformerEncoderLayer(_Layer):
    """Attention of a sequence to itself, then a network of two dense layers for each entry.

    Each is skipped by a sum and normalised: afterwards, or before with `norm_first` (Xiong et
    al. 2020, arXiv 2002.04745). `nnx.view(model, deterministic=...)` switches between training
    (False) and evaluation.

    Args:
        d_model: features of inputs and outputs.
        nhead: heads of the attention, which divide them.
        dim_feedforward: features between the dense layers.
        dropout: share that is zeroed in training of attention weights, of what either block
            adds, and of the features between the dense layers.
        activation: of those: "relu", "gelu" or a function.
        layer_norm_eps: added to variances.
        batch_first: whether arrays are (b, s, e), not (s, b, e).
        norm_first: whether the input of each block is normalised instead of the sum.
        bias: whether dense layers, projections and normalisations have biases.
        rngs: source of the initial weights.

    Raises:
        ValueError: an impossible size, dropout or activation; inputs and masks that do not fit
            (see `MultiheadAttention`); a call in training without `rngs`.

    Source: torch.nn.TransformerEncoderLayer.

    >>> layer = TransformerEncoderLayer(6, 2, dropout=0.0, batch_first=True, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((4, 5, 6))).shape
    (4, 5, 6)
    """

    def __call__(
        self,
        src: Float[Array, "... e"],
        src_mask: Array | None = None,
        src_key_padding_mask: Array | None = None,
        is_causal: bool = False,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "... e"]:
        """The sequence, each entry with what it took from the others.

        Args:
            src: the sequence.
            src_mask: (s, s) or (b * nhead, s, s).
            src_key_padding_mask: (b, s), or (s,) without a batch.
            is_causal: a promise that `src_mask` hides what comes after each entry.
            rngs: draws the dropout in training.
        """
        masks = _masks(src_mask, src_key_padding_mask, is_causal)

        def self_attention(x: Array) -> Array:
            return self.dropout1(self._attend(self.self_attn, x, x, masks, rngs), rngs=rngs)

        def feedforward(x: Array) -> Array:
            return self.dropout2(self._feedforward(x, rngs), rngs=rngs)

        x = self._added(src, self.norm1, self_attention)
        return self._added(x, self.norm2, feedforward)


class TransformerDecoderLayer(_Layer):
    """An encoder layer that attends to another sequence, too, before its dense layers.

    Args:
        d_model: features of inputs and outputs.
        nhead: heads of either attention, which divide them.
        dim_feedforward: features between the dense layers.
        dropout: share that is zeroed in training, as in `TransformerEncoderLayer`.
        activation: between the dense layers: "relu", "gelu" or a function.
        layer_norm_eps: added to variances.
        batch_first: whether arrays are (b, t, e), not (t, b, e).
        norm_first: whether the input of each block is normalised instead of the sum.
        bias: whether dense layers, projections and normalisations have biases.
        rngs: source of the initial weights.

    Raises:
        ValueError: as `TransformerEncoderLayer`.

    Source: torch.nn.TransformerDecoderLayer.

    >>> layer = TransformerDecoderLayer(6, 2, dropout=0.0, batch_first=True, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((4, 5, 6)), jnp.ones((4, 3, 6))).shape
    (4, 5, 6)
    """

    has_memory = True

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        sizes: Any = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps)
        sizes += (batch_first, norm_first, bias)
        super().__init__(*sizes, rngs=rngs)
        self.norm3 = LayerNorm(d_model, layer_norm_eps, bias=bias)
        self.dropout3 = Dropout(dropout)

    def __call__(
        self,
        tgt: Float[Array, "... e"],
        memory: Float[Array, "... e"],
        tgt_mask: Array | None = None,
        memory_mask: Array | None = None,
        tgt_key_padding_mask: Array | None = None,
        memory_key_padding_mask: Array | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "... e"]:
        """The target, each entry with what it took from the others and from the memory.

        Args:
            tgt: the sequence.
            memory: the other sequence, an encoder's output.
            tgt_mask: (t, t) or (b * nhead, t, t).
            memory_mask: (t, s) or (b * nhead, t, s).
            tgt_key_padding_mask: (b, t), or (t,) without a batch.
            memory_key_padding_mask: (b, s), or (s,) without a batch.
            tgt_is_causal: a promise that `tgt_mask` hides what comes after each entry.
            memory_is_causal: the same of `memory_mask`.
            rngs: draws the dropout in training.
        """
        own = _masks(tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        others = _masks(memory_mask, memory_key_padding_mask, memory_is_causal)

        def self_attention(x: Array) -> Array:
            return self.dropout1(self._attend(self.self_attn, x, x, own, rngs), rngs=rngs)

        def attention(x: Array) -> Array:
            attended = self._attend(self.multihead_attn, x, memory, others, rngs)
            return self.dropout2(attended, rngs=rngs)

        def feedforward(x: Array) -> Array:
            return self.dropout3(self._feedforward(x, rngs), rngs=rngs)

        x = self._added(tgt, self.norm1, self_attention)
        x = self._added(x, self.norm2, attention)
        return self._added(x, self.norm3, feedforward)


class TransformerEncoder(nnx.Module):
    """Encoder layers on top of each other.

    As in torch, all start from the weights of the layer that is given, each with its own.

    Args:
        encoder_layer: what is copied.
        num_layers: how many copies.
        norm: a normalisation of the last output.

    Raises:
        ValueError: no layers; as `TransformerEncoderLayer`.

    Source: torch.nn.TransformerEncoder.

    >>> layer = TransformerEncoderLayer(6, 2, batch_first=True, rngs=nnx.Rngs(0))
    >>> encoder = TransformerEncoder(layer, 3, LayerNorm(6))
    >>> encoder(jnp.ones((4, 5, 6)), rngs=nnx.Rngs(0)).shape
    (4, 5, 6)
    """

    def __init__(
        self,
        encoder_layer: TransformerEncoderLayer,
        num_layers: int,
        norm: nnx.Module | None = None,
    ) -> None:
        self.layers = nnx.List(_copies(encoder_layer, num_layers))
        self.norm = norm

    def __call__(
        self,
        src: Float[Array, "... e"],
        mask: Array | None = None,
        src_key_padding_mask: Array | None = None,
        is_causal: bool | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "... e"]:
        """The sequence behind the last layer.

        Args:
            src: the sequence.
            mask: (s, s) or (b * nhead, s, s).
            src_key_padding_mask: (b, s), or (s,) without a batch.
            is_causal: a promise that `mask` hides what comes after each entry.
            rngs: draws the dropout in training.
        """
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, bool(is_causal), rngs=rngs)
        return src if self.norm is None else self.norm(src)


class TransformerDecoder(nnx.Module):
    """Decoder layers on top of each other, each of which attends to the same memory.

    As in torch, all start from the weights of the layer that is given, each with its own.

    Args:
        decoder_layer: what is copied.
        num_layers: how many copies.
        norm: a normalisation of the last output.

    Raises:
        ValueError: no layers; as `TransformerDecoderLayer`.

    Source: torch.nn.TransformerDecoder.

    >>> layer = TransformerDecoderLayer(6, 2, batch_first=True, rngs=nnx.Rngs(0))
    >>> decoder = TransformerDecoder(layer, 3)
    >>> decoder(jnp.ones((4, 5, 6)), jnp.ones((4, 3, 6)), rngs=nnx.Rngs(0)).shape
    (4, 5, 6)
    """

    def __init__(
        self,
        decoder_layer: TransformerDecoderLayer,
        num_layers: int,
        norm: nnx.Module | None = None,
    ) -> None:
        self.layers = nnx.List(_copies(decoder_layer, num_layers))
        self.norm = norm

    def __call__(
        self,
        tgt: Float[Array, "... e"],
        memory: Float[Array, "... e"],
        tgt_mask: Array | None = None,
        memory_mask: Array | None = None,
        tgt_key_padding_mask: Array | None = None,
        memory_key_padding_mask: Array | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "... e"]:
        """The target behind the last layer; arguments are those of `TransformerDecoderLayer`."""
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        for layer in self.layers:
            tgt = layer(tgt, memory, *masks, bool(tgt_is_causal), memory_is_causal, rngs=rngs)
        return tgt if self.norm is None else self.norm(tgt)


def _copies(layer: nnx.Module, count: int) -> list[Any]:
    if count < 1:
        raise ValueError(f"num_layers {count} is too small; use 1 or more")
    return [nnx.clone(layer) for _ in range(count)]


class Transformer(nnx.Module):
    """An encoder of the source and a decoder of the target that attends to it.

    Args:
        d_model: features of inputs and outputs.
        nhead: heads of each attention, which divide them.
        num_encoder_layers: layers of the encoder.
        num_decoder_layers: layers of the decoder.
        dim_feedforward: features between the dense layers.
        dropout: share that is zeroed in training, as in `TransformerEncoderLayer`.
        activation: between the dense layers: "relu", "gelu" or a function.
        custom_encoder: takes the encoder's place.
        custom_decoder: takes the decoder's place.
        layer_norm_eps: added to variances.
        batch_first: whether arrays are (b, t, e), not (t, b, e).
        norm_first: whether the input of each block is normalised instead of the sum.
        bias: whether dense layers, projections and normalisations have biases.
        rngs: source of the initial weights; matrices are Xavier-uniform.

    Raises:
        ValueError: as `TransformerEncoderLayer`; source and target that differ in batch.

    Source: torch.nn.Transformer.

    >>> model = Transformer(6, 2, 1, 1, batch_first=True, rngs=nnx.Rngs(0))
    >>> causal = Transformer.generate_square_subsequent_mask(3)
    >>> src, tgt = jnp.ones((4, 5, 6)), jnp.ones((4, 3, 6))
    >>> model(src, tgt, tgt_mask=causal, rngs=nnx.Rngs(0)).shape
    (4, 3, 6)
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = "relu",
        custom_encoder: nnx.Module | None = None,
        custom_decoder: nnx.Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        sizes: Any = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps)
        sizes += (batch_first, norm_first, bias)
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first
        self.encoder = custom_encoder or TransformerEncoder(
            TransformerEncoderLayer(*sizes, rngs=rngs),
            num_encoder_layers,
            LayerNorm(d_model, layer_norm_eps, bias=bias),
        )
        self.decoder = custom_decoder or TransformerDecoder(
            TransformerDecoderLayer(*sizes, rngs=rngs),
            num_decoder_layers,
            LayerNorm(d_model, layer_norm_eps, bias=bias),
        )
        init = xavier_uniform()
        for _, weight in nnx.to_flat_state(nnx.state(self, nnx.Param)):
            if weight.ndim > 1:
                weight.set_value(init(rngs.params(), weight.shape, weight.dtype))

    @staticmethod
    def generate_square_subsequent_mask(sz: int, dtype: Any = None) -> Float[Array, "t t"]:
        """A mask that hides what comes after each entry.

        Args:
            sz: entries of the sequence.
            dtype: of the mask, which is added to scores; None for the default.

        >>> Transformer.generate_square_subsequent_mask(2).tolist()
        [[0.0, -inf], [0.0, 0.0]]
        """
        return jnp.triu(jnp.full((sz, sz), -jnp.inf, dtype), 1)

    def __call__(
        self,
        src: Float[Array, "... i"],
        tgt: Float[Array, "... o"],
        src_mask: Array | None = None,
        tgt_mask: Array | None = None,
        memory_mask: Array | None = None,
        src_key_padding_mask: Array | None = None,
        tgt_key_padding_mask: Array | None = None,
        memory_key_padding_mask: Array | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "... o"]:
        """The target behind the decoder.

        Args:
            src: the source sequence.
            tgt: the target sequence.
            src_mask: (s, s) or (b * nhead, s, s).
            tgt_mask: (t, t) or (b * nhead, t, t).
            memory_mask: (t, s) or (b * nhead, t, s).
            src_key_padding_mask: (b, s), or (s,) without a batch.
            tgt_key_padding_mask: (b, t), or (t,) without a batch.
            memory_key_padding_mask: (b, s), or (s,) without a batch.
            src_is_causal: a promise that `src_mask` hides what comes after each entry.
            tgt_is_causal: the same of `tgt_mask`.
            memory_is_causal: the same of `memory_mask`.
            rngs: draws the dropout in training.
        """
        batch = 0 if self.batch_first else 1
        if src.ndim == 3 and src.shape[batch] != tgt.shape[batch]:
            raise ValueError(f"src {src.shape} and tgt {tgt.shape} differ in batch")
        for name, x in (("src", src), ("tgt", tgt)):
            if x.shape[-1] != self.d_model:
                raise ValueError(f"{name} {x.shape} has {x.shape[-1]} features, not {self.d_model}")
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal, rngs=rngs)
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        return self.decoder(tgt, memory, *masks, tgt_is_causal, memory_is_causal, rngs=rngs)
