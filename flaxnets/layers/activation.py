"""torch.nn's activations as NNX layers, with torch's arguments, defaults and gradients.

Where two pieces of a function meet, the gradient is the one that torch takes there. Axes:
x any axes, c channels, which are the last axis.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flaxnets.layers.shape import lifted


class ReLU(nnx.Module):
    """max(x, 0), with gradient 0 at 0.

    >>> import jax.numpy as jnp
    >>> ReLU()(jnp.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.nn.relu(x)


class ReLU6(nnx.Module):
    """x, kept between 0 and 6 (Krizhevsky 2010, "Convolutional deep belief networks on CIFAR-10").

    >>> import jax.numpy as jnp
    >>> ReLU6()(jnp.array([-1.0, 2.0, 9.0])).tolist()
    [0.0, 2.0, 6.0]
    """

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.nn.relu6(x)


class LeakyReLU(nnx.Module):
    """x where positive, a small multiple of it elsewhere (Maas, Hannun, Ng 2013).

    Args:
        negative_slope: of the part below zero.

    >>> import jax.numpy as jnp
    >>> LeakyReLU(0.5)(jnp.array([-1.0, 2.0])).tolist()
    [-0.5, 2.0]
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return _leaky(x, self.negative_slope)


class PReLU(nnx.Module):
    """A leaky ReLU that learns its slope (He et al. 2015, arXiv 1502.01852).

    Args:
        num_parameters: slopes, 1 for all channels or one for each.
        init: what they start from.

    Raises:
        ValueError: (when called) channels of another number than the slopes.

    >>> import jax.numpy as jnp
    >>> PReLU()(jnp.array([-1.0, 2.0])).tolist()
    [-0.25, 2.0]
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        self.weight = nnx.Param(jnp.full(num_parameters, init, jnp.float32))

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        slopes = self.weight[...]
        if slopes.size > 1 and x.shape[-1:] != slopes.shape:
            raise ValueError(
                f"input {x.shape} has another number of channels, its last axis, than "
                f"num_parameters {slopes.size}; use one slope a channel or 1"
            )
        return _leaky(x, lifted(slopes, x.ndim) if slopes.size > 1 else slopes.reshape(()))


class RReLU(nnx.Module):
    """A leaky ReLU whose slope is drawn for every entry (Xu et al. 2015, arXiv 1505.00853).

    In evaluation mode the slope is the mean of the two ends.

    Args:
        lower: end of the range of slopes.
        upper: end of the range of slopes.

    Attributes:
        deterministic: whether to evaluate; switched by `nnx.view`.

    Raises:
        ValueError: a lower end above the upper, or (when called) training without `rngs`,
            whose stream "dropout" the slopes are drawn from.

    >>> import jax.numpy as jnp
    >>> layer = RReLU(0.25, 0.75)
    >>> nnx.view(layer, deterministic=True)(jnp.array([-1.0, 2.0])).tolist()
    [-0.5, 2.0]
    >>> -0.75 <= float(layer(jnp.array(-1.0), rngs=nnx.Rngs(0))) <= -0.25
    True
    """

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3) -> None:
        if lower > upper:
            raise ValueError(f"lower {lower} is above upper {upper}; use at most that")
        self.lower = lower
        self.upper = upper
        self.deterministic = False

    def set_view(self, deterministic: bool | None = None) -> None:
        """Called by `nnx.view`; None leaves the mode as it is."""
        if deterministic is not None:
            self.deterministic = deterministic

    def __call__(
        self, x: Float[Array, "*x"], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "*x"]:
        if self.deterministic:
            return _leaky(x, (self.lower + self.upper) / 2)
        if rngs is None:
            raise ValueError("RReLU draws slopes in training; call it with rngs=nnx.Rngs(...)")
        slopes = jax.random.uniform(rngs.dropout(), x.shape, x.dtype, self.lower, self.upper)
        return _leaky(x, slopes)


class ELU(nnx.Module):
    """x where positive, alpha (exp(x) - 1) elsewhere (Clevert et al. 2015, arXiv 1511.07289).

    Args:
        alpha: minus the limit far below zero.

    >>> import jax.numpy as jnp
    >>> ELU(2.0)(jnp.array([-100.0, 2.0])).tolist()
    [-2.0, 2.0]
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.nn.elu(x, self.alpha)


class SELU(nnx.Module):
    """An ELU that keeps mean 0 and variance 1 (Klambauer et al. 2017, arXiv 1706.02515).

    >>> import jax.numpy as jnp
    >>> round(float(SELU()(jnp.ones(()))), 4)
    1.0507
    """

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.nn.selu(x)


class CELU(nnx.Module):
    """x where positive, alpha (exp(x / alpha) - 1) elsewhere (Barron 2017, arXiv 1704.07483).

    Args:
        alpha: minus the limit far below zero; not 0.

    Raises:
        ValueError: an alpha of 0.

    >>> import jax.numpy as jnp
    >>> CELU(2.0)(jnp.array([-100.0, 2.0])).tolist()
    [-2.0, 2.0]
    """

    def __init__(self, alpha: float = 1.0) -> None:
        if alpha == 0:
            raise ValueError("alpha 0 would divide by zero; use another number")
        self.alpha = alpha

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.nn.celu(x, self.alpha)


class Tanh(nnx.Module):
    """Hyperbolic tangent.

    >>> import jax.numpy as jnp
    >>> Tanh()(jnp.zeros(1)).tolist()
    [0.0]
    """

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jnp.tanh(x)


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


class Softmin(nnx.Module):
    """exp(-x), scaled to sum 1 along an axis.

    Args:
        dim: the axis, counted in Flax's layout.

    >>> import jax.numpy as jnp
    >>> Softmin(dim=-1)(jnp.array([0.0, 100.0])).tolist()
    [1.0, 0.0]
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.nn.softmax(-x, axis=self.dim)


class Softmax2d(nnx.Module):
    """Softmax over the channels of every pixel, the last axis.

    >>> import jax.numpy as jnp
    >>> Softmax2d()(jnp.zeros((1, 1, 1, 2))).tolist()
    [[[[0.5, 0.5]]]]
    """

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        return jax.nn.softmax(x, axis=-1)


class GLU(nnx.Module):
    """The first half times the sigmoid of the second (Dauphin et al. 2016, arXiv 1612.08083).

    Args:
        dim: the axis that is halved, counted in Flax's layout.

    Raises:
        ValueError: (when called) an axis of odd size.

    >>> import jax.numpy as jnp
    >>> GLU()(jnp.array([3.0, 0.0])).tolist()
    [1.5]
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*y"]:
        if x.shape[self.dim] % 2:
            raise ValueError(
                f"input {x.shape} cannot be halved along dim {self.dim}; use an even size"
            )
        return jax.nn.glu(x, self.dim)


class Mish(nnx.Module):
    """x times the tanh of its softplus (Misra 2019, arXiv 1908.08681).

    >>> import jax.numpy as jnp
    >>> Mish()(jnp.zeros(1)).tolist()
    [0.0]
    """

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.nn.mish(x)


class Softplus(nnx.Module):
    """log(1 + exp(beta x)) / beta, a smooth ReLU.

    Args:
        beta: how sharply it bends.
        threshold: of beta x, above which the layer returns x.

    Raises:
        ValueError: a beta of 0.

    >>> import jax.numpy as jnp
    >>> Softplus()(jnp.array([-100.0, 30.0])).tolist()
    [0.0, 30.0]
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        if beta == 0:
            raise ValueError("beta 0 would divide by zero; use another number")
        self.beta = beta
        self.threshold = threshold

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        scaled = self.beta * x
        return jnp.where(scaled > self.threshold, x, jax.nn.softplus(scaled) / self.beta)


class Softsign(nnx.Module):
    """x / (1 + |x|).

    >>> import jax.numpy as jnp
    >>> Softsign()(jnp.array([-1.0, 3.0])).tolist()
    [-0.5, 0.75]
    """

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.nn.soft_sign(x)


class Tanhshrink(nnx.Module):
    """x - tanh(x).

    >>> import jax.numpy as jnp
    >>> Tanhshrink()(jnp.array([0.0, 30.0])).tolist()
    [0.0, 29.0]
    """

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return x - jnp.tanh(x)


class LogSigmoid(nnx.Module):
    """Logarithm of the sigmoid.

    >>> import jax.numpy as jnp
    >>> LogSigmoid()(jnp.array([-200.0, 200.0])).tolist()
    [-200.0, -0.0]
    """

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.nn.log_sigmoid(x)


class Hardtanh(nnx.Module):
    """x, kept between two numbers, with gradient 0 at both.

    Args:
        min_val: the smaller of them.
        max_val: the larger.

    Raises:
        ValueError: a range that is empty.

    >>> import jax.numpy as jnp
    >>> Hardtanh()(jnp.array([-3.0, 0.5, 3.0])).tolist()
    [-1.0, 0.5, 1.0]
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        if min_val >= max_val:
            raise ValueError(f"min_val {min_val} is not below max_val {max_val}")
        self.min_val = min_val
        self.max_val = max_val

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jnp.where(
            x <= self.min_val, self.min_val, jnp.where(x >= self.max_val, self.max_val, x)
        )


class Hardsigmoid(nnx.Module):
    """x / 6 + 1 / 2, kept between 0 and 1.

    >>> import jax.numpy as jnp
    >>> Hardsigmoid()(jnp.array([-3.0, 0.0, 3.0])).tolist()
    [0.0, 0.5, 1.0]
    """

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.nn.hard_sigmoid(x)


class Hardswish(nnx.Module):
    """x times its hard sigmoid (Howard et al. 2019, arXiv 1905.02244).

    >>> import jax.numpy as jnp
    >>> Hardswish()(jnp.array([0.0, 3.0])).tolist()
    [0.0, 3.0]
    """

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jax.nn.hard_swish(x)


class Hardshrink(nnx.Module):
    """x, with 0 in the place of small numbers.

    Args:
        lambd: the largest magnitude that becomes 0.

    >>> import jax.numpy as jnp
    >>> Hardshrink()(jnp.array([-2.0, 0.5, 0.75])).tolist()
    [-2.0, 0.0, 0.75]
    """

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = lambd

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jnp.where((x >= -self.lambd) & (x <= self.lambd), 0, x)


class Softshrink(nnx.Module):
    """x, moved towards 0 by a number and not beyond it.

    Args:
        lambd: that number.

    Raises:
        ValueError: a negative one.

    >>> import jax.numpy as jnp
    >>> Softshrink()(jnp.array([-2.0, 0.5, 0.75])).tolist()
    [-1.5, 0.0, 0.25]
    """

    def __init__(self, lambd: float = 0.5) -> None:
        if lambd < 0:
            raise ValueError(f"lambd {lambd} is negative; use 0 or more")
        self.lambd = lambd

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        moved = x - jnp.sign(x) * self.lambd
        return jnp.where((x >= -self.lambd) & (x <= self.lambd), 0, moved)


class Threshold(nnx.Module):
    """x where it is above a threshold, a fixed value elsewhere.

    Args:
        threshold: the largest number that is replaced.
        value: what replaces it.

    >>> import jax.numpy as jnp
    >>> Threshold(0.5, 20.0)(jnp.array([0.5, 0.75])).tolist()
    [20.0, 0.75]
    """

    def __init__(self, threshold: float, value: float) -> None:
        self.threshold = threshold
        self.value = value

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return jnp.where(x <= self.threshold, self.value, x)


def _leaky(x: Array, slope: float | Array) -> Array:
    """X where positive, slope times x elsewhere; at 0 the gradient is the slope, as in torch."""
    return jnp.where(x > 0, x, slope * x)


BY_NAME = {"relu": ReLU, "tanh": Tanh, "sigmoid": Sigmoid, "gelu": GELU, "silu": SiLU}


def activation(name: str) -> nnx.Module:
    """A new activation by the name that specs use.

    >>> type(activation("relu")).__name__
    'ReLU'
    """
    return BY_NAME[name]()
