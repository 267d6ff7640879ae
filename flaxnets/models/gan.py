"""Convolutional generative adversarial network: Radford, Metz, Chintala (2015), arXiv 1511.06434.

Axes: b batch, h w pixels, c channels.
"""

from itertools import pairwise

from flax import nnx
from jaxtyping import Array, Float

from flaxnets.layers import BatchNorm2d, Conv2d, ConvTranspose2d, LeakyReLU, ReLU, Sigmoid, Tanh
from flaxnets.specs.gan import GANSpec

SLOPE = 0.2  # of the discriminator's activations below zero


class Generator(nnx.Module):
    """Noise of one pixel, doubled in size again and again, to an image between -1 and 1.

    The seed calls `super()` without `.__init__()`.
    """

    def __init__(self, spec: GANSpec, *, rngs: nnx.Rngs) -> None:
        widest, *inner = reversed(spec.features)
        layers: list = [
            ConvTranspose2d(spec.noise_channels, widest, 4, 1, 0, bias=False, rngs=rngs),
            BatchNorm2d(widest),
            ReLU(),
        ]
        for wide, narrow in pairwise((widest, *inner)):
            layers += [
                ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False, rngs=rngs),
                BatchNorm2d(narrow),
                ReLU(),
            ]
        layers += [
            ConvTranspose2d(spec.width, spec.in_shape[0], 4, 2, 1, bias=False, rngs=rngs),
            Tanh(),
        ]
        self.net = nnx.Sequential(*layers)

    def __call__(self, noise: Float[Array, "b 1 1 n"]) -> Float[Array, "b h w c"]:
        return self.net(noise)


class Discriminator(nnx.Module):
    """An image, halved in size again and again, to the probability that it is real.

    The seed calls `super()` without `.__init__()`.
    """

    def __init__(self, spec: GANSpec, *, rngs: nnx.Rngs) -> None:
        layers: list = [
            Conv2d(spec.in_shape[0], spec.width, 4, 2, 1, bias=False, rngs=rngs),
            LeakyReLU(SLOPE),
        ]
        for narrow, wide in pairwise(spec.features):
            layers += [
                Conv2d(narrow, wide, 4, 2, 1, bias=False, rngs=rngs),
                BatchNorm2d(wide),
                LeakyReLU(SLOPE),
            ]
        layers += [Conv2d(spec.features[-1], 1, 4, 1, 0, bias=False, rngs=rngs), Sigmoid()]
        self.net = nnx.Sequential(*layers)

    def __call__(self, image: Float[Array, "b h w c"]) -> Float[Array, "b 1 1 1"]:
        return self.net(image)


class GAN(nnx.Module):
    """Both halves; called with noise it returns images and what the discriminator makes of them.

    >>> import jax.numpy as jnp
    >>> image, real = GAN(GANSpec(), rngs=nnx.Rngs(0))(jnp.ones((2, 1, 1, 200)))
    >>> image.shape, real.shape
    ((2, 64, 64, 1), (2, 1, 1, 1))
    """

    def __init__(self, spec: GANSpec, *, rngs: nnx.Rngs) -> None:
        self.noise_channels = spec.noise_channels
        self.generator = Generator(spec, rngs=rngs)
        self.discriminator = Discriminator(spec, rngs=rngs)

    def __call__(
        self, noise: Float[Array, "b 1 1 n"]
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b 1 1 1"]]:
        image = self.generator(noise)
        return image, self.discriminator(image)
