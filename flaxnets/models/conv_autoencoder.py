"""Convolutional autoencoder: Masci et al. (2011). Axes: b batch, h w y x pixels, c k channels."""

from flax import nnx
from jaxtyping import Array, Float

from flaxnets.layers import Conv2d, ConvTranspose2d, ReLU, Sigmoid
from flaxnets.specs.conv_autoencoder import ConvAutoencoderSpec


class ConvAutoencoder(nnx.Module):
    """Two strided convolutions to a code, a map as well, and two transposed ones back.

    >>> import jax.numpy as jnp
    >>> model = ConvAutoencoder(ConvAutoencoderSpec(), rngs=nnx.Rngs(0))
    >>> model(jnp.ones((2, 28, 28, 1))).shape, model.encode(jnp.ones((2, 28, 28, 1))).shape
    ((2, 28, 28, 1), (2, 7, 7, 32))
    """

    def __init__(self, spec: ConvAutoencoderSpec, *, rngs: nnx.Rngs) -> None:
        pixels = spec.in_shape[0]
        first, second = spec.channels
        pads = spec.output_paddings
        self.encoder = nnx.Sequential(
            Conv2d(pixels, first, 3, stride=2, padding=1, rngs=rngs),
            ReLU(),
            Conv2d(first, second, 3, stride=2, padding=1, rngs=rngs),
            ReLU(),
        )
        self.decoder = nnx.Sequential(
            ConvTranspose2d(second, first, 3, 2, 1, output_padding=pads[0], rngs=rngs),
            ReLU(),
            ConvTranspose2d(first, pixels, 3, 2, 1, output_padding=pads[1], rngs=rngs),
            Sigmoid(),
        )

    def encode(self, image: Float[Array, "b h w c"]) -> Float[Array, "b y x k"]:
        """(b, h, w, c) -> (b, y, x, k)."""
        return self.encoder(image)

    def decode(self, code: Float[Array, "b y x k"]) -> Float[Array, "b h w c"]:
        """(b, y, x, k) -> (b, h, w, c)."""
        return self.decoder(code)

    def __call__(self, image: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return self.decode(self.encode(image))
