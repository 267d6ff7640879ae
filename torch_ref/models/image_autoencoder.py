"""Image autoencoder: Hinton, Salakhutdinov (2006).

Axes: b batch, h w pixels, c channels, k code.
"""

import torch
from torch import nn

from flaxnets.specs.image_autoencoder import ImageAutoencoderSpec


class ImageAutoencoder(nn.Module):
    """Three dense layers from an image to a code and three back; the code has a ReLU behind it.

    The seed's class reshapes inside its call; here that is `flatten` and `unflatten`, so that
    each half runs alone.

    >>> model = ImageAutoencoder(ImageAutoencoderSpec())
    >>> model(torch.ones(2, 1, 28, 28)).shape, model.encode(torch.ones(2, 1, 28, 28)).shape
    (torch.Size([2, 1, 28, 28]), torch.Size([2, 12]))
    """

    def __init__(self, spec: ImageAutoencoderSpec) -> None:
        super().__init__()
        first, second = spec.hidden_sizes
        self.flatten = nn.Flatten()
        self.encoder = nn.Sequential(
            nn.Linear(spec.flat_size, first),
            nn.ReLU(),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Linear(second, spec.code_size),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            nn.Linear(spec.code_size, second),
            nn.ReLU(),
            nn.Linear(second, first),
            nn.ReLU(),
            nn.Linear(first, spec.flat_size),
            nn.Sigmoid(),
        )
        self.unflatten = nn.Unflatten(1, spec.in_shape)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """(b, c, h, w) -> (b, k)."""
        return self.encoder(self.flatten(image))

    def decode(self, code: torch.Tensor) -> torch.Tensor:
        """(b, k) -> (b, c, h, w)."""
        return self.unflatten(self.decoder(code))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        return self.decode(self.encode(image))
