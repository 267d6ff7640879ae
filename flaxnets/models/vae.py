"""Convolutional variational autoencoder: Kingma, Welling (2013), arXiv 1312.6114.

Axes: b batch, h w pixels, c channels, z numbers of the code.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from flaxnets.layers import (
    BatchNorm2d,
    CenterCrop,
    Conv2d,
    ConvTranspose2d,
    Flatten,
    LeakyReLU,
    Linear,
    ReLU,
    Sigmoid,
    Unflatten,
)
from flaxnets.specs.vae import VAESpec


class VAE(nnx.Module):
    """An image to the mean and log-variance of its code, and a draw of the code to an image.

    `z_var` holds the logarithm of the variance, as the seed names it. The seed's decoder ends
    in one channel and its code is square; here both follow `in_shape`. In evaluation the code
    is its mean, so that reconstructions repeat.

    >>> model = VAE(VAESpec(), rngs=nnx.Rngs(0))
    >>> output, mean, logvar = model(jnp.ones((2, 32, 32, 1)), rngs=nnx.Rngs(1))
    >>> output.shape, mean.shape, model.sample(3, rngs=nnx.Rngs(2)).shape
    ((2, 32, 32, 1), (2, 16), (3, 32, 32, 1))
    """

    def __init__(self, spec: VAESpec, *, rngs: nnx.Rngs) -> None:
        channels, height, width = spec.in_shape
        first, second = spec.channels
        maps, rows, columns = spec.feature_shape
        flat = maps * rows * columns
        self.n_latent = spec.n_latent
        self.deterministic = False
        self.encoder = nnx.Sequential(
            BatchNorm2d(channels),
            Conv2d(channels, first, kernel_size=4, stride=2, padding=1, rngs=rngs),
            BatchNorm2d(first),
            LeakyReLU(),
            Conv2d(first, second, kernel_size=4, stride=2, padding=1, rngs=rngs),
            BatchNorm2d(second),
            LeakyReLU(),
        )
        self.flatten = Flatten()
        self.z_mean = Linear(flat, spec.n_latent, rngs=rngs)
        self.z_var = Linear(flat, spec.n_latent, rngs=rngs)
        self.z_develop = Linear(spec.n_latent, flat, rngs=rngs)
        self.unflatten = Unflatten(1, spec.feature_shape)
        self.decoder = nnx.Sequential(
            ConvTranspose2d(second, first, kernel_size=3, stride=2, padding=0, rngs=rngs),
            BatchNorm2d(first),
            ReLU(),
            ConvTranspose2d(first, channels, kernel_size=3, stride=2, padding=1, rngs=rngs),
            CenterCrop(height, width),
            Sigmoid(),
        )

    def set_view(self, deterministic: bool | None = None) -> None:
        """Switch between training and evaluation, for `nnx.view`.

        Args:
            deterministic: True in evaluation, where the code is its mean.
        """
        if deterministic is not None:
            self.deterministic = deterministic

    def encode(
        self, image: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b z"], Float[Array, "b z"]]:
        """Mean and log-variance of the code."""
        x = self.flatten(self.encoder(image))
        return self.z_mean(x), self.z_var(x)

    def decode(self, z: Float[Array, "b z"]) -> Float[Array, "b h w c"]:
        """The image of a code."""
        return self.decoder(self.unflatten(self.z_develop(z)))

    def sample_z(
        self, mean: Float[Array, "b z"], logvar: Float[Array, "b z"], *, rngs: nnx.Rngs
    ) -> Float[Array, "b z"]:
        """A draw of the code, through which gradients flow to mean and log-variance."""
        wide = np.promote_types(mean.dtype, np.float32)
        noise = jax.random.normal(rngs(), mean.shape, wide).astype(mean.dtype)
        return mean + jnp.exp(0.5 * logvar) * noise

    def sample(self, count: int, *, rngs: nnx.Rngs) -> Float[Array, "b h w c"]:
        """New images, from codes drawn from the standard normal distribution."""
        return self.decode(jax.random.normal(rngs(), (count, self.n_latent)))

    def __call__(
        self, image: Float[Array, "b h w c"], *, rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b z"], Float[Array, "b z"]]:
        mean, logvar = self.encode(image)
        if self.deterministic:
            z = mean
        elif rngs is None:
            raise ValueError("vae: training draws codes; call it with rngs=nnx.Rngs(seed)")
        else:
            z = self.sample_z(mean, logvar, rngs=rngs)
        return self.decode(z), mean, logvar
