"""Layers that only rearrange: torch.nn.Flatten. Axes: b batch, x every spatial axis, c channels."""

from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float


class Flatten(nnx.Module):
    """All axes behind the batch in one row, in torch's order: channels outermost.

    A dense layer behind it then has the same weight matrix in both frameworks.

    >>> import jax.numpy as jnp
    >>> Flatten()(jnp.arange(8.0).reshape(1, 2, 2, 2))[0].tolist()
    [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]
    """

    def __call__(self, x: Float[Array, "b *x c"]) -> Float[Array, "b f"]:
        return rearrange(x, "b ... c -> b (c ...)")
