"""Transformer: Vaswani et al. (2017), "Attention is all you need", arXiv 1706.03762."""

from flax import nnx

from flaxnets import layers
from flaxnets.specs.transformer import TransformerSpec


class Transformer(layers.Transformer):
    """Encoder of a source (b, s, e) and decoder of a target (b, t, e) that attends to it.

    Nothing is masked unless the call says so; `generate_square_subsequent_mask` hides the future.

    >>> import jax.numpy as jnp
    >>> spec = TransformerSpec(d_model=6, nhead=2, num_encoder_layers=1, num_decoder_layers=1)
    >>> model = nnx.view(Transformer(spec, rngs=nnx.Rngs(0)), deterministic=True)
    >>> causal = Transformer.generate_square_subsequent_mask(3)
    >>> model(jnp.ones((4, 5, 6)), jnp.ones((4, 3, 6)), tgt_mask=causal).shape
    (4, 3, 6)
    """

    def __init__(self, spec: TransformerSpec, *, rngs: nnx.Rngs) -> None:
        super().__init__(
            spec.d_model,
            spec.nhead,
            spec.num_encoder_layers,
            spec.num_decoder_layers,
            spec.dim_feedforward,
            spec.dropout,
            spec.activation,
            layer_norm_eps=spec.layer_norm_eps,
            batch_first=True,
            norm_first=spec.norm_first,
            bias=spec.bias,
            rngs=rngs,
        )
