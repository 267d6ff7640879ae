"""The encoder of the Transformer alone: Vaswani et al. (2017), arXiv 1706.03762."""

import torch
from torch import nn

from flaxnets.specs.transformer_encoder import TransformerEncoderSpec


class TransformerEncoder(nn.TransformerEncoder):
    """Layers in which every vector of a sequence (b, s, e) attends to the others.

    Nested tensors are off: they would zero the outputs of padding, in evaluation only.

    >>> spec = TransformerEncoderSpec(d_model=6, nhead=2, num_layers=1)
    >>> TransformerEncoder(spec)(torch.ones(4, 5, 6)).shape
    torch.Size([4, 5, 6])
    """

    def __init__(self, spec: TransformerEncoderSpec) -> None:
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
            layer,
            spec.num_layers,
            norm if spec.final_norm else None,
            enable_nested_tensor=False,
        )
        self.causal = spec.causal

    def forward(
        self,
        src: torch.Tensor,
        mask: torch.Tensor | None = None,
        src_key_padding_mask: torch.Tensor | None = None,
        is_causal: bool | None = None,
    ) -> torch.Tensor:
        """(b, s, e) -> (b, s, e)."""
        if self.causal and mask is None:
            mask = nn.Transformer.generate_square_subsequent_mask(
                src.size(-2), device=src.device, dtype=src.dtype
            )
            is_causal = True
        return super().forward(src, mask, src_key_padding_mask, is_causal)
