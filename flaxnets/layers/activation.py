"""torch.nn's activations as NNX layers, with torch's arguments and defaults."""

from typing import Literal

import jax
from flax import nnx
from jaxtyping import Array, Float


class ReLU(nnx.Module):
    """max(x, 0), with gradient 0 at 0.

    >>> import jax.numpy as jnp
    >>> ReLU()(jnp.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.nn.relu(x)


class Tanh(nnx.Module):
    """Hyperbolic tangent.

    >>> import jax.numpy as jnp
    >>> Tanh()(jnp.zeros(1)).tolist()
    [0.0]
    """

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.numpy.tanh(x)


class Sigmoid(nnx.Module):
    """1 / (1 + exp(-x)).

    >>> import jax.numpy as jnp
    >>> Sigmoid()(jnp.zeros(1)).tolist()
    [0.5]
    """

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.nn.sigmoid(x)


class GELU(nnx.Module):
    """x times the normal distribution function (Hendrycks, Gimpel 2016, arXiv 1606.08415).

    Args:
        approximate: "none" for the error function, torch's default (JAX's is "tanh").

    >>> import jax.numpy as jnp
    >>> round(float(GELU()(jnp.ones(()))), 4), round(float(GELU("tanh")(jnp.ones(()))), 4)
    (0.8413, 0.8412)
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        self.approximate = approximate

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.nn.gelu(x, approximate=self.approximate == "tanh")


class SiLU(nnx.Module):
    """x times its sigmoid (Elfwing, Uchibe, Doya 2017, arXiv 1702.03118).

    >>> import jax.numpy as jnp
    >>> SiLU()(jnp.zeros(1)).tolist()
    [0.0]
    """

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.nn.silu(x)


class Softmax(nnx.Module):
    """exp(x), scaled to sum 1 along an axis.

    Args:
        dim: the axis, counted in Flax's layout.

    >>> import jax.numpy as jnp
    >>> Softmax(dim=-1)(jnp.zeros((1, 4))).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.nn.softmax(x, axis=self.dim)


class LogSoftmax(nnx.Module):
    """Logarithm of the softmax along an axis.

    Args:
        dim: the axis, counted in Flax's layout.

    >>> import jax.numpy as jnp
    >>> LogSoftmax(dim=-1)(jnp.zeros((1, 1))).tolist()
    [[0.0]]
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.nn.log_softmax(x, axis=self.dim)


BY_NAME = {"relu": ReLU, "tanh": Tanh, "sigmoid": Sigmoid, "gelu": GELU, "silu": SiLU}


def activation(name: str) -> nnx.Module:
    """A new activation by the name that specs use.

    >>> type(activation("relu")).__name__
    'ReLU'
    """
    return BY_NAME[name]()
