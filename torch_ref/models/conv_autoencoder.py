"""Convolutional autoencoder: Masci et al. (2011). Axes: b batch, h w y x pixels, c k channels."""

import torch
from torch import nn

from flaxnets.specs.conv_autoencoder import ConvAutoencoderSpec


class ConvAutoencoder(nn.Module):
    """Two strided convolutions to a code, a map as well, and two transposed ones back.

    >>> model = ConvAutoencoder(ConvAutoencoderSpec())
    >>> model(torch.ones(2, 1, 28, 28)).shape, model.encode(torch.ones(2, 1, 28, 28)).shape
    (torch.Size([2, 1, 28, 28]), torch.Size([2, 32, 7, 7]))
    """

    def __init__(self, spec: ConvAutoencoderSpec) -> None:
        super().__init__()
        pixels = spec.in_shape[0]
        first, second = spec.channels
        pads = spec.output_paddings
        self.encoder = nn.Sequential(
            nn.Conv2d(pixels, first, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(second, first, 3, 2, 1, output_padding=pads[0]),
            nn.ReLU(),
            nn.ConvTranspose2d(first, pixels, 3, 2, 1, output_padding=pads[1]),
            nn.Sigmoid(),
        )

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """(b, c, h, w) -> (b, k, y, x)."""
        return self.encoder(image)

    def decode(self, code: torch.Tensor) -> torch.Tensor:
        """(b, k, y, x) -> (b, c, h, w)."""
        return self.decoder(code)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        return self.decode(self.encode(image))
