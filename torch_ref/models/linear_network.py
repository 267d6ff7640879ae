"""Linear network: two bare weight matrices. Axes: b batch, f features, o outputs."""

import torch
from torch import nn

from flaxnets.specs.linear_network import LinearNetworkSpec


class LinearNetwork(nn.Module):
    """Two matrix products; the weights are (in, out) and start standard normal.

    The seed multiplies two free tensors; here they are the parameters of a module, under the
    names that they have there.

    >>> LinearNetwork(LinearNetworkSpec())(torch.ones(16, 3)).shape
    torch.Size([16, 8])
    """

    def __init__(self, spec: LinearNetworkSpec) -> None:
        super().__init__()
        self.W1 = nn.Parameter(torch.randn(spec.in_features, spec.hidden_size))
        self.W2 = nn.Parameter(torch.randn(spec.hidden_size, spec.out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, f) -> (b, o)."""
        hidden = x @ self.W1
        return hidden @ self.W2
