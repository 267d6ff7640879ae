"""Convolutional generative adversarial network: Radford, Metz, Chintala (2015), arXiv 1511.06434.

Axes: b batch, h w pixels, c channels.
"""

from itertools import pairwise

import torch
from torch import nn

from flaxnets.specs.gan import GANSpec

SLOPE = 0.2  # of the discriminator's activations below zero


class Generator(nn.Module):
    """Noise of one pixel, doubled in size again and again, to an image between -1 and 1.

    The seed calls `super()` without `.__init__()`.
    """

    def __init__(self, spec: GANSpec) -> None:
        super().__init__()
        widest, *inner = reversed(spec.features)
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(spec.noise_channels, widest, 4, 1, 0, bias=False),
            nn.BatchNorm2d(widest),
            nn.ReLU(),
        ]
        for wide, narrow in pairwise((widest, *inner)):
            layers += [
                nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False),
                nn.BatchNorm2d(narrow),
                nn.ReLU(),
            ]
        layers += [
            nn.ConvTranspose2d(spec.width, spec.in_shape[0], 4, 2, 1, bias=False),
            nn.Tanh(),
        ]
        self.net = nn.Sequential(*layers)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """(b, n, 1, 1) -> (b, c, h, w)."""
        return self.net(noise)


class Discriminator(nn.Module):
    """An image, halved in size again and again, to the probability that it is real.

    The seed calls `super()` without `.__init__()`.
    """

    def __init__(self, spec: GANSpec) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(spec.in_shape[0], spec.width, 4, 2, 1, bias=False),
            nn.LeakyReLU(SLOPE),
        ]
        for narrow, wide in pairwise(spec.features):
            layers += [
                nn.Conv2d(narrow, wide, 4, 2, 1, bias=False),
                nn.BatchNorm2d(wide),
                nn.LeakyReLU(SLOPE),
            ]
        layers += [nn.Conv2d(spec.features[-1], 1, 4, 1, 0, bias=False), nn.Sigmoid()]
        self.net = nn.Sequential(*layers)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(b, c, h, w) -> (b, 1, 1, 1)."""
        return self.net(image)


class GAN(nn.Module):
    """Both halves; called with noise it returns images and what the discriminator makes of them.

    >>> image, real = GAN(GANSpec())(torch.ones(2, 200, 1, 1))
    >>> image.shape, real.shape
    (torch.Size([2, 1, 64, 64]), torch.Size([2, 1, 1, 1]))
    """

    def __init__(self, spec: GANSpec) -> None:
        super().__init__()
        self.noise_channels = spec.noise_channels
        self.generator = Generator(spec)
        self.discriminator = Discriminator(spec)

    def forward(self, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, n, 1, 1) -> (b, c, h, w), (b, 1, 1, 1)."""
        image = self.generator(noise)
        return image, self.discriminator(image)
