"""Multi-layer perceptron on rows of pixels. Axes: b batch, f features."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from flaxnets.layers import Flatten, Linear
from flaxnets.specs.mlp import MLPSpec


class MLP(nnx.Module):
    """Three hidden layers with ReLU, then the logits; images are flattened first.

    >>> import jax.numpy as jnp
    >>> MLP(MLPSpec(), rngs=nnx.Rngs(0))(jnp.ones((2, 28, 28, 1))).shape
    (2, 10)
    """

    def __init__(self, spec: MLPSpec, *, rngs: nnx.Rngs) -> None:
        first, second, third = spec.hidden_sizes
        self.flatten = Flatten()
        self.fc1 = Linear(spec.in_features, first, rngs=rngs)
        self.fc2 = Linear(first, second, rngs=rngs)
        self.fc3 = Linear(second, third, rngs=rngs)
        self.out = Linear(third, spec.num_classes, rngs=rngs)

    def __call__(self, x: Float[Array, "b *x"]) -> Float[Array, "b classes"]:
        x = self.flatten(x)
        x = jax.nn.relu(self.fc1(x))
        x = jax.nn.relu(self.fc2(x))
        x = jax.nn.relu(self.fc3(x))
        return self.out(x)
