"""Feed-forward network: Rumelhart, Hinton, Williams (1986). Axes: b batch, f features."""

import torch
from torch import nn

from flaxnets.specs.feedforward import FeedForwardSpec
from torch_ref.layers import activation


class FeedForward(nn.Module):
    """Linear, activation, linear, and a softmax over the classes if the spec wants one.

    The seed's softmax names no dimension; here it runs over the classes.

    >>> FeedForward(FeedForwardSpec())(torch.ones(1, 100)).shape
    torch.Size([1, 10])
    """

    def __init__(self, spec: FeedForwardSpec) -> None:
        super().__init__()
        self.linear1 = nn.Linear(spec.in_features, spec.hidden_size)
        self.activation = activation(spec.activation)
        self.linear2 = nn.Linear(spec.hidden_size, spec.num_classes)
        self.softmax = nn.Softmax(dim=-1) if spec.softmax else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, f) -> (b, classes)."""
        x = self.linear1(x)
        x = self.activation(x)
        x = self.linear2(x)
        return self.softmax(x) if self.softmax is not None else x
