"""Conv2DNet: the pattern of LeCun et al. (1998). Axes: b batch, x every spatial axis, c channels.

It is named for images and takes signals and volumes as well.
"""

import torch
from torch import nn

from flaxnets.specs.conv_net import Conv2DNetSpec

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}


class Conv2DNet(nn.Module):
    """Strided convolution, ReLU and pooling twice, then the logits.

    The seed assigns `maxpool` twice; here it is `maxpool1` and `maxpool2`, neither with
    weights. Its dense layer fits 20x20 images only; here its size follows from the image's.

    >>> Conv2DNet(Conv2DNetSpec())(torch.ones(32, 3, 20, 20)).shape
    torch.Size([32, 10])
    """

    def __init__(self, spec: Conv2DNetSpec) -> None:
        super().__init__()
        conv, pool = CONVS[spec.spatial_dims], POOLS[spec.spatial_dims]
        first, second = spec.channels
        self.conv1 = conv(spec.in_channels, first, kernel_size=5, stride=2, padding=2)
        self.relu = nn.ReLU()
        self.maxpool1 = pool(kernel_size=2)
        self.conv2 = conv(first, second, kernel_size=2, stride=2, padding=1)
        self.maxpool2 = pool(kernel_size=2)
        self.flatten = nn.Flatten()
        self.output = nn.Linear(spec.flat_size, spec.num_classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(b, c, *x) -> (b, classes)."""
        x = self.maxpool1(self.relu(self.conv1(image)))
        x = self.maxpool2(self.relu(self.conv2(x)))
        x = self.flatten(x)
        return self.output(x)
