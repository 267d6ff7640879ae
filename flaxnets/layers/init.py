"""The distributions that torch.nn draws new weights from (torch.nn.init)."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn.initializers import Initializer

from flaxnets.layers.threefry import counted

SMALL, LARGE = 2**14, 2**20  # numbers that are drawn by one program; that have one of their own


def uniform_fan_in(fan_in: int) -> Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what torch gives weight and bias of Linear and Conv.

    torch writes it as `kaiming_uniform_(weight, a=sqrt(5))` (He et al. 2015, arXiv 1502.01852).

    >>> float(abs(uniform_fan_in(4)(jax.random.key(0), (100,))).max()) <= 0.5
    True
    """
    bound = fan_in**-0.5 if fan_in else 0.0

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        return _drawn(_uniform, key, shape, dtype, bound)

    return init


def xavier_uniform() -> Initializer:
    """U(-b, b) with b = sqrt(6 / (rows + columns)) (Glorot, Bengio 2010).

    >>> float(abs(xavier_uniform()(jax.random.key(0), (4, 20))).max()) <= 0.5
    True
    """

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        return _drawn(_uniform, key, shape, dtype, math.sqrt(6 / (shape[-2] + shape[-1])))

    return init


def normal(deviation: float = 1.0) -> Initializer:
    """N(0, deviation**2).

    >>> bool(abs(normal(0.5)(jax.random.key(0), (1000,)).std() - 0.5) < 0.05)
    True
    """

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        return _drawn(_normal, key, shape, dtype, deviation)

    return init


class _Stream(nnx.RngStream):
    """The keys of an `nnx.RngStream`, which are counted in Python.

    A counter that is an array becomes a tracer where a model is built in a trace, and each time
    that it is set JAX looks through all of the trace before it.
    """

    def __init__(self, key, *, tag):
        super().__init__(key, tag=tag)
        self.number = 0

    def __call__(self):
        key = jax.random.fold_in(self.key[...], self.number)
        self.number += 1
        return key


def rngs(seed: int | jax.Array) -> nnx.Rngs:
    """The keys of `nnx.Rngs(seed)`, for the first weights of a model.

    >>> bool(rngs(3).params() == nnx.Rngs(3).params())
    True
    """
    found: Any = nnx.Rngs()
    found.default = _Stream(seed, tag="default")
    return found


@functools.partial(jax.jit, static_argnums=(1, 2))
def _uniform(key, shape, dtype, bound):
    return jax.random.uniform(key, shape, dtype, -bound, bound)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _normal(key, shape, dtype, deviation):
    return deviation * jax.random.normal(key, shape, dtype)


def _drawn(draw, key, shape, dtype, scale):
    """The same numbers as `draw` for the shape, without a program for every shape.

    Where numbers are counted, an array's are the first ones of a longer array, so that one
    program draws all small arrays.
    """
    count = math.prod(shape)
    if isinstance(key, jax.core.Tracer) or count > LARGE or not counted(key):
        return draw(key, shape, dtype, scale)
    drawn = draw(key, (max(SMALL, 1 << (count - 1).bit_length()),), dtype, scale)
    if isinstance(drawn, jax.core.Tracer):  # of a key from outside of what is traced
        return drawn[:count].reshape(shape)
    return jax.device_put(np.asarray(drawn)[:count].reshape(shape))
