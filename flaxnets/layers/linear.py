"""torch.nn.Linear, on `flax.nnx.Linear`, and torch.nn.Bilinear. Axes: i j in, o out."""

import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from jaxtyping import Array, Float

from flaxnets.layers.init import uniform_fan_in
from flaxnets.layers.shape import lifted


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


class Bilinear(nnx.Module):
    """y_o = x1 W_o x2 + b_o: every output is a bilinear form of two inputs.

    Args:
        in1_features: size of the last axis of the first input.
        in2_features: size of the last axis of the second input.
        out_features: size of the last axis of the output.
        bias: whether there is a b.
        rngs: source of the initial weights.

    Source: torch.nn.Bilinear.

    >>> layer = Bilinear(4, 5, 3, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 4)), jnp.ones((2, 5))).shape
    (2, 3)
    """

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        if in1_features < 1:
            raise ValueError(f"in1_features {in1_features} is too small; use 1 or more")
        init = uniform_fan_in(in1_features)
        self.kernel = nnx.Param(init(rngs.params(), (in1_features, in2_features, out_features)))
        self.bias = nnx.data(nnx.Param(init(rngs.params(), (out_features,))) if bias else None)

    def __call__(
        self, input1: Float[Array, "*b i"], input2: Float[Array, "*b j"]
    ) -> Float[Array, "*b o"]:
        bias = None if self.bias is None else self.bias[...]
        input1, input2, kernel, bias = promote_dtype((input1, input2, self.kernel[...], bias))
        y = jnp.einsum("...i,ijo,...j->...o", input1, kernel, input2)
        return y if bias is None else y + lifted(bias, y.ndim)
