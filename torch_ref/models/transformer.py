"""Transformer: Vaswani et al. (2017), "Attention is all you need", arXiv 1706.03762."""

from torch import nn

from flaxnets.specs.transformer import TransformerSpec


class Transformer(nn.Transformer):
    """Encoder of a source (b, s, e) and decoder of a target (b, t, e) that attends to it.

    Nested tensors are off: they would zero the outputs of padding, in evaluation only.

    >>> import torch
    >>> spec = TransformerSpec(d_model=6, nhead=2, num_encoder_layers=1, num_decoder_layers=1)
    >>> causal = Transformer.generate_square_subsequent_mask(3)
    >>> Transformer(spec)(torch.ones(4, 5, 6), torch.ones(4, 3, 6), tgt_mask=causal).shape
    torch.Size([4, 3, 6])
    """

    def __init__(self, spec: TransformerSpec) -> None:
        layer = nn.TransformerEncoderLayer(
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
        super().__init__(
            spec.d_model,
            spec.nhead,
            num_decoder_layers=spec.num_decoder_layers,
            dim_feedforward=spec.dim_feedforward,
            dropout=spec.dropout,
            activation=spec.activation,
            custom_encoder=nn.TransformerEncoder(
                layer, spec.num_encoder_layers, norm, enable_nested_tensor=False
            ),
            layer_norm_eps=spec.layer_norm_eps,
            batch_first=True,
            norm_first=spec.norm_first,
            bias=spec.bias,
        )
