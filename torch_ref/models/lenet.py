"""LeNet: LeCun, Bottou, Bengio, Haffner (1998). Axes: b batch, h w pixels, c channels."""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from torch import nn

from flaxnets.specs.lenet import LeNetSpec
from torch_ref.layers import activation


class LeNet(nn.Module):
    """Convolution, ReLU and pooling twice, then three dense layers.

    The seed imports `torch.functional` where it means `torch.nn.functional`.

    >>> LeNet(LeNetSpec())(torch.ones(2, 1, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, spec: LeNetSpec) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(spec.in_channels, spec.channels[0], spec.kernel_sizes[0])
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(spec.channels[0], spec.channels[1], spec.kernel_sizes[1])
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(spec.flat_size, spec.dense_sizes[0])
        self.act1 = activation(spec.dense_activation)
        self.fc2 = nn.Linear(spec.dense_sizes[0], spec.dense_sizes[1])
        self.act2 = activation(spec.dense_activation)
        self.fc3 = nn.Linear(spec.dense_sizes[1], spec.num_classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(b, c, h, w) -> (b, classes)."""
        x = self.pool1(F.relu(self.conv1(image)))
        x = self.pool2(F.relu(self.conv2(x)))
        x = self.flatten(x)
        x = self.act1(self.fc1(x))
        x = self.act2(self.fc2(x))
        return self.fc3(x)
