"""Convolutional variational autoencoder: Kingma, Welling (2013), arXiv 1312.6114.

Axes: b batch, h w pixels, c channels, z numbers of the code.
"""

import torch
from torch import nn

from flaxnets.specs.vae import VAESpec
from torch_ref.layers import CenterCrop


class VAE(nn.Module):
    """An image to the mean and log-variance of its code, and a draw of the code to an image.

    `z_var` holds the logarithm of the variance, as the seed names it. The seed's decoder ends
    in one channel and its code is square; here both follow `in_shape`. In evaluation the code
    is its mean, so that reconstructions repeat.

    >>> output, mean, logvar = VAE(VAESpec())(torch.ones(2, 1, 32, 32))
    >>> output.shape, mean.shape
    (torch.Size([2, 1, 32, 32]), torch.Size([2, 16]))
    """

    def __init__(self, spec: VAESpec) -> None:
        super().__init__()
        channels, height, width = spec.in_shape
        first, second = spec.channels
        maps, rows, columns = spec.feature_shape
        flat = maps * rows * columns
        self.n_latent = spec.n_latent
        self.encoder = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, first, kernel_size=4, stride=2, padding=1),
            nn.BatchNorm2d(first),
            nn.LeakyReLU(),
            nn.Conv2d(first, second, kernel_size=4, stride=2, padding=1),
            nn.BatchNorm2d(second),
            nn.LeakyReLU(),
        )
        self.flatten = nn.Flatten()
        self.z_mean = nn.Linear(flat, spec.n_latent)
        self.z_var = nn.Linear(flat, spec.n_latent)
        self.z_develop = nn.Linear(spec.n_latent, flat)
        self.unflatten = nn.Unflatten(1, spec.feature_shape)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(second, first, kernel_size=3, stride=2, padding=0),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.ConvTranspose2d(first, channels, kernel_size=3, stride=2, padding=1),
            CenterCrop(height, width),
            nn.Sigmoid(),
        )

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, c, h, w) -> mean and log-variance of the code, each (b, z)."""
        x = self.flatten(self.encoder(image))
        return self.z_mean(x), self.z_var(x)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """(b, z) -> (b, c, h, w)."""
        return self.decoder(self.unflatten(self.z_develop(z)))

    def sample_z(self, mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
        """A draw of the code, through which gradients flow to mean and log-variance."""
        return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)

    def sample(self, count: int) -> torch.Tensor:
        """New images, from codes drawn from the standard normal distribution."""
        return self.decode(torch.randn(count, self.n_latent))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(b, c, h, w) -> (b, c, h, w), (b, z), (b, z)."""
        mean, logvar = self.encode(image)
        z = self.sample_z(mean, logvar) if self.training else mean
        return self.decode(z), mean, logvar
