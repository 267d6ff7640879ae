"""Image autoencoder: Hinton, Salakhutdinov (2006).

Axes: b batch, h w pixels, c channels, k code.
"""

from flax import nnx
from jaxtyping import Array, Float

from flaxnets.layers import Flatten, Linear, ReLU, Sigmoid, Unflatten
from flaxnets.specs.image_autoencoder import ImageAutoencoderSpec


class ImageAutoencoder(nnx.Module):
    """Three dense layers from an image to a code and three back; the code has a ReLU behind it.

    The seed's class reshapes inside its call; here that is `flatten` and `unflatten`, so that
    each half runs alone.

    >>> import jax.numpy as jnp
    >>> model = ImageAutoencoder(ImageAutoencoderSpec(), rngs=nnx.Rngs(0))
    >>> model(jnp.ones((2, 28, 28, 1))).shape, model.encode(jnp.ones((2, 28, 28, 1))).shape
    ((2, 28, 28, 1), (2, 12))
    """

    def __init__(self, spec: ImageAutoencoderSpec, *, rngs: nnx.Rngs) -> None:
        first, second = spec.hidden_sizes
        self.flatten = Flatten()
        self.encoder = nnx.Sequential(
            Linear(spec.flat_size, first, rngs=rngs),
            ReLU(),
            Linear(first, second, rngs=rngs),
            ReLU(),
            Linear(second, spec.code_size, rngs=rngs),
            ReLU(),
        )
        self.decoder = nnx.Sequential(
            Linear(spec.code_size, second, rngs=rngs),
            ReLU(),
            Linear(second, first, rngs=rngs),
            ReLU(),
            Linear(first, spec.flat_size, rngs=rngs),
            Sigmoid(),
        )
        self.unflatten = Unflatten(1, spec.in_shape)

    def encode(self, image: Float[Array, "b h w c"]) -> Float[Array, "b k"]:
        """(b, h, w, c) -> (b, k)."""
        return self.encoder(self.flatten(image))

    def decode(self, code: Float[Array, "b k"]) -> Float[Array, "b h w c"]:
        """(b, k) -> (b, h, w, c)."""
        return self.unflatten(self.decoder(code))

    def __call__(self, image: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return self.decode(self.encode(image))
