"""Where in a sequence an entry is, added to it. Axes: b batch, t time, d features."""

import math

import torch
from torch import nn


class SinusoidalPositionalEncoding(nn.Module):
    """Sines and cosines of the position: Vaswani et al. 2017, arXiv 1706.03762, section 3.5.

    Args:
        d_model: features.
        max_len: entries of the longest sequence.
        dropout: the share that is zeroed in training.

    >>> SinusoidalPositionalEncoding(4, max_len=10, dropout=0.0)(torch.zeros(1, 2, 4))
    tensor([[[0.0000, 1.0000, 0.0000, 1.0000],
             [0.8415, 0.5403, 0.0100, 0.9999]]])
    """

    pe: torch.Tensor

    def __init__(self, d_model: int, max_len: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        position = torch.arange(max_len, dtype=torch.float64).unsqueeze(1)
        even = torch.arange(0, d_model, 2, dtype=torch.float64)
        div_term = torch.exp(even * (-math.log(10000.0) / d_model))
        pe = torch.zeros(max_len, d_model, dtype=torch.float64)
        pe[:, 0::2] = torch.sin(position * div_term)
        pe[:, 1::2] = torch.cos(position * div_term[: d_model // 2])
        self.register_buffer("pe", pe, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, t, d) -> (b, t, d)."""
        return self.dropout(x + self.pe[: x.size(-2)].to(x.dtype))


class LearnedPositionalEncoding(nn.Embedding):
    """A learned vector for each position: Gehring et al. 2017, arXiv 1705.03122, section 3.1.

    Args:
        d_model: features.
        max_len: entries of the longest sequence.
        dropout: the share that is zeroed in training.

    >>> LearnedPositionalEncoding(4, max_len=10)(torch.zeros(2, 5, 4)).shape
    torch.Size([2, 5, 4])
    """

    def __init__(self, d_model: int, max_len: int, dropout: float = 0.1) -> None:
        super().__init__(max_len, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, t, d) -> (b, t, d)."""
        positions = torch.arange(x.size(-2), device=x.device)
        return self.dropout(x + super().forward(positions))
