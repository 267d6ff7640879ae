"""Multi-layer perceptron on rows of pixels. Axes: b batch, f features."""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from torch import nn

from flaxnets.specs.mlp import MLPSpec


class MLP(nn.Module):
    """Three hidden layers with ReLU, then the logits; images are flattened first.

    >>> MLP(MLPSpec())(torch.ones(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self, spec: MLPSpec) -> None:
        super().__init__()
        first, second, third = spec.hidden_sizes
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(spec.in_features, first)
        self.fc2 = nn.Linear(first, second)
        self.fc3 = nn.Linear(second, third)
        self.out = nn.Linear(third, spec.num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, f) or (b, c, h, w) -> (b, classes)."""
        x = self.flatten(x)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        x = F.relu(self.fc3(x))
        return self.out(x)
