"""The decoder of the Transformer alone: Vaswani et al. (2017), arXiv 1706.03762."""

from flax import nnx

from flaxnets import layers
from flaxnets.specs.transformer_decoder import TransformerDecoderSpec


class TransformerDecoder(layers.TransformerDecoder):
    """Layers in which a target (b, t, e) attends to itself and to a memory (b, s, e).

    >>> import jax.numpy as jnp
    >>> spec = TransformerDecoderSpec(d_model=6, nhead=2, num_layers=1)
    >>> model = nnx.view(TransformerDecoder(spec, rngs=nnx.Rngs(0)), deterministic=True)
    >>> model(jnp.ones((4, 5, 6)), jnp.ones((4, 3, 6))).shape
    (4, 5, 6)
    """

    def __init__(self, spec: TransformerDecoderSpec, *, rngs: nnx.Rngs) -> None:
        layer = layers.TransformerDecoderLayer(
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
