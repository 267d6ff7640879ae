"""Linear network: two bare weight matrices. Axes: b batch, f features, o outputs."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flaxnets.layers.init import normal
from flaxnets.specs.linear_network import LinearNetworkSpec


class LinearNetwork(nnx.Module):
    """Two matrix products; the weights are (in, out) and start standard normal.

    The seed multiplies two free tensors; here they are the parameters of a module, under the
    names that they have there.

    >>> LinearNetwork(LinearNetworkSpec(), rngs=nnx.Rngs(0))(jnp.ones((16, 3))).shape
    (16, 8)
    """

    def __init__(self, spec: LinearNetworkSpec, *, rngs: nnx.Rngs) -> None:
        first = (spec.in_features, spec.hidden_size)
        second = (spec.hidden_size, spec.out_features)
        self.W1 = nnx.Param(normal()(rngs.params(), first, jnp.float32))
        self.W2 = nnx.Param(normal()(rngs.params(), second, jnp.float32))

    def __call__(self, x: Float[Array, "b f"]) -> Float[Array, "b o"]:
        hidden = x @ self.W1[...]
        return hidden @ self.W2[...]
