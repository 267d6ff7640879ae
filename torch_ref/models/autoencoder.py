"""Autoencoder: Rumelhart, Hinton, Williams (1986). Axes: b batch, f features, k code."""

import torch
from torch import nn

from flaxnets.specs.autoencoder import AutoencoderSpec


class Autoencoder(nn.Module):
    """Rows of features through a narrow code; ReLU in the middle of each half only.

    The seed calls `self.self.encoder_2`, which does not exist; here it is `self.encoder_2`.

    >>> model = Autoencoder(AutoencoderSpec())
    >>> model(torch.ones(32, 10)).shape, model.encode(torch.ones(32, 10)).shape
    (torch.Size([32, 10]), torch.Size([32, 5]))
    """

    def __init__(self, spec: AutoencoderSpec) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.encoder_1 = nn.Linear(spec.input_size, spec.reduced_size)
        self.encoder_2 = nn.Linear(spec.reduced_size, spec.encoding_size)
        self.decoder_1 = nn.Linear(spec.encoding_size, spec.reduced_size)
        self.decoder_2 = nn.Linear(spec.reduced_size, spec.input_size)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """(b, f) -> (b, k)."""
        return self.encoder_2(self.relu(self.encoder_1(x)))

    def decode(self, code: torch.Tensor) -> torch.Tensor:
        """(b, k) -> (b, f)."""
        return self.decoder_2(self.relu(self.decoder_1(code)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, f) -> (b, f)."""
        return self.decode(self.encode(x))
