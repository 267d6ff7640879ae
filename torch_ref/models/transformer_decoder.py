"""The decoder of the Transformer alone: Vaswani et al. (2017), arXiv 1706.03762."""

from torch import nn

from flaxnets.specs.transformer_decoder import TransformerDecoderSpec


class TransformerDecoder(nn.TransformerDecoder):
    """Layers in which a target (b, t, e) attends to itself and to a memory (b, s, e).

    >>> import torch
    >>> spec = TransformerDecoderSpec(d_model=6, nhead=2, num_layers=1)
    >>> TransformerDecoder(spec)(torch.ones(4, 5, 6), torch.ones(4, 3, 6)).shape
    torch.Size([4, 5, 6])
    """

    def __init__(self, spec: TransformerDecoderSpec) -> None:
        layer = nn.TransformerDecoderLayer(
            spec.d_model,
            spec.nhead,
            spec.dim_feedforward,
            spec.dropout,
            spec.activation,
            spec.layer_norm_eps,
            batch_first=True,
            norm_first=spec.norm_first,
            bias=spec.bias,
        )
        norm = nn.LayerNorm(spec.d_model, eps=spec.layer_norm_eps, bias=spec.bias)
        super().__init__(layer, spec.num_layers, norm if spec.final_norm else None)
