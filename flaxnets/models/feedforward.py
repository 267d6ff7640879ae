"""Feed-forward network: Rumelhart, Hinton, Williams (1986). Axes: b batch, f features."""

from flax import nnx
from jaxtyping import Array, Float

from flaxnets.layers import Linear, Softmax, activation
from flaxnets.specs.feedforward import FeedForwardSpec


class FeedForward(nnx.Module):
    """Linear, activation, linear, and a softmax over the classes if the spec wants one.

    The seed's softmax names no dimension; here it runs over the classes.

    >>> import jax.numpy as jnp
    >>> model = FeedForward(FeedForwardSpec(), rngs=nnx.Rngs(0))
    >>> round(float(model(jnp.ones((1, 100))).sum()), 4)
    1.0
    """

    def __init__(self, spec: FeedForwardSpec, *, rngs: nnx.Rngs) -> None:
        self.linear1 = Linear(spec.in_features, spec.hidden_size, rngs=rngs)
        self.activation = activation(spec.activation)
        self.linear2 = Linear(spec.hidden_size, spec.num_classes, rngs=rngs)
        self.softmax = Softmax(dim=-1) if spec.softmax else None

    def __call__(self, x: Float[Array, "b f"]) -> Float[Array, "b classes"]:
        x = self.linear1(x)
        x = self.activation(x)
        x = self.linear2(x)
        return self.softmax(x) if self.softmax is not None else x
