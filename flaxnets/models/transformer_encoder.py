"""The encoder of the Transformer alone: Vaswani et al. (2017), arXiv 1706.03762."""

from flax import nnx
from jaxtyping import Array, Float

from flaxnets import layers
from flaxnets.specs.transformer_encoder import TransformerEncoderSpec


class TransformerEncoder(layers.TransformerEncoder):
    """Layers in which every vector of a sequence (b, s, e) attends to the others.

    >>> import jax.numpy as jnp
    >>> spec = TransformerEncoderSpec(d_model=6, nhead=2, num_layers=1)
    >>> model = nnx.view(TransformerEncoder(spec, rngs=nnx.Rngs(0)), deterministic=True)
    >>> model(jnp.ones((4, 5, 6))).shape
    (4, 5, 6)
    """

    def __init__(self, spec: TransformerEncoderSpec, *, rngs: nnx.Rngs) -> None:
        layer = layers.TransformerEncoderLayer(
            spec.d_model,
            spec.nhead,
            spec.dim_feedforward,
            spec.dropout,
            spec.activation,
            spec.layer_norm_eps,
            batch_first=True,
            norm_first=spec.norm_first,
            bias=spec.bias,
            rngs=rngs,
        )
        norm = layers.LayerNorm(spec.d_model, spec.layer_norm_eps, bias=spec.bias)
        super().__init__(layer, spec.num_layers, norm if spec.final_norm else None)
        self.causal = spec.causal

    def __call__(
        self,
        src: Float[Array, "... e"],
        mask: Array | None = None,
        src_key_padding_mask: Array | None = None,
        is_causal: bool | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "... e"]:
        if self.causal and mask is None:
            mask = layers.Transformer.generate_square_subsequent_mask(src.shape[-2], src.dtype)
            is_causal = True
        return super().__call__(src, mask, src_key_padding_mask, is_causal, rngs=rngs)
