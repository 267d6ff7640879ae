"""torch.nn.Linear on `flax.nnx.Linear`. Axes: i in, o out."""

from flax import nnx

from flaxnets.layers.init import uniform_fan_in


class Linear(nnx.Linear):
    """y = x W + b, initialised as torch initialises it.

    Args:
        in_features: size of the last axis of the input.
        out_features: size of the last axis of the output.
        bias: whether there is a b.
        rngs: source of the initial weights.

    Source: torch.nn.Linear.

    >>> import jax.numpy as jnp
    >>> Linear(4, 3, rngs=nnx.Rngs(0))(jnp.ones((2, 4))).shape
    (2, 3)
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, rngs: nnx.Rngs
    ) -> None:
        init = uniform_fan_in(in_features)
        super().__init__(
            in_features,
            out_features,
            use_bias=bias,
            kernel_init=init,
            bias_init=init,
            rngs=rngs,
        )
