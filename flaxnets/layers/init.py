"""The distributions that torch.nn draws new weights from (torch.nn.init)."""

import jax
from jax.nn.initializers import Initializer


def uniform_fan_in(fan_in: int) -> Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what torch gives weight and bias of Linear and Conv.

    torch writes it as `kaiming_uniform_(weight, a=sqrt(5))` (He et al. 2015, arXiv 1502.01852).

    >>> float(abs(uniform_fan_in(4)(jax.random.key(0), (100,))).max()) <= 0.5
    True
    """
    bound = fan_in**-0.5 if fan_in else 0.0

    def init(key, shape, dtype=float, out_sharding=None):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
