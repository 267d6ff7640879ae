"""Minimum pooling, which torch.nn has not."""

import torch
from torch import nn


class MinPool1d(nn.MaxPool1d):
    """Smallest entry of every window.

    >>> MinPool1d(2)(torch.arange(4.0).reshape(1, 1, 4))
    tensor([[[0., 2.]]])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(b, c, l) -> (b, c, windows)."""
        return -super().forward(-input)


class MinPool2d(nn.MaxPool2d):
    """Smallest entry of every window.

    >>> MinPool2d(2)(torch.ones(2, 3, 9, 8)).shape
    torch.Size([2, 3, 4, 4])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(b, c, h, w) -> (b, c, windows down, windows across)."""
        return -super().forward(-input)


class MinPool3d(nn.MaxPool3d):
    """Smallest entry of every window.

    >>> MinPool3d(2)(torch.ones(2, 3, 4, 6, 8)).shape
    torch.Size([2, 3, 2, 3, 4])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(b, c, d, h, w) -> (b, c, windows along each axis)."""
        return -super().forward(-input)
