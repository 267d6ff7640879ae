"""Cropping as torchvision does it, without torchvision."""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from torch import nn


class CenterCrop(nn.Module):
    """The middle of an image; zeros are added where it is larger than the image.

    Source: torchvision.transforms.functional.center_crop.

    >>> CenterCrop(2, 3)(torch.arange(5.0).reshape(1, 1, 1, 5))
    tensor([[[[1., 2., 3.],
              [0., 0., 0.]]]])
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height = height
        self.width = width

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(b, c, h, w) -> (b, c, height, width)."""
        lacking_h = max(self.height - image.shape[-2], 0)
        lacking_w = max(self.width - image.shape[-1], 0)
        image = F.pad(
            image,
            (lacking_w // 2, (lacking_w + 1) // 2, lacking_h // 2, (lacking_h + 1) // 2),
        )
        top = round((image.shape[-2] - self.height) / 2)
        left = round((image.shape[-1] - self.width) / 2)
        return image[..., top : top + self.height, left : left + self.width]
