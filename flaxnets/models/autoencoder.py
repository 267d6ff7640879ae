"""Autoencoder: Rumelhart, Hinton, Williams (1986). Axes: b batch, f features, k code."""

from flax import nnx
from jaxtyping import Array, Float

from flaxnets.layers import Linear, ReLU
from flaxnets.specs.autoencoder import AutoencoderSpec


class Autoencoder(nnx.Module):
    """Rows of features through a narrow code; ReLU in the middle of each half only.

    The seed calls `self.self.encoder_2`, which does not exist; here it is `self.encoder_2`.

    >>> import jax.numpy as jnp
    >>> model = Autoencoder(AutoencoderSpec(), rngs=nnx.Rngs(0))
    >>> model(jnp.ones((32, 10))).shape, model.encode(jnp.ones((32, 10))).shape
    ((32, 10), (32, 5))
    """

    def __init__(self, spec: AutoencoderSpec, *, rngs: nnx.Rngs) -> None:
        self.relu = ReLU()
        self.encoder_1 = Linear(spec.input_size, spec.reduced_size, rngs=rngs)
        self.encoder_2 = Linear(spec.reduced_size, spec.encoding_size, rngs=rngs)
        self.decoder_1 = Linear(spec.encoding_size, spec.reduced_size, rngs=rngs)
        self.decoder_2 = Linear(spec.reduced_size, spec.input_size, rngs=rngs)

    def encode(self, x: Float[Array, "b f"]) -> Float[Array, "b k"]:
        """(b, f) -> (b, k)."""
        return self.encoder_2(self.relu(self.encoder_1(x)))

    def decode(self, code: Float[Array, "b k"]) -> Float[Array, "b f"]:
        """(b, k) -> (b, f)."""
        return self.decoder_2(self.relu(self.decoder_1(code)))

    def __call__(self, x: Float[Array, "b f"]) -> Float[Array, "b f"]:
        return self.decode(self.encode(x))
