"""Rounding is judged by torch's own, and a side that loses digits is found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flaxnets.parity.pair import Pair
from flaxnets.parity.rounding import rounding, without_noise
from flaxnets.specs import Input

UNITS = {"float32": 2.0**-23, "bfloat16": 2.0**-7}
LOSSY = {"float32": jnp.bfloat16, "bfloat16": jnp.float8_e5m2}


class Lossy(nnx.Module):
    """A dense layer whose input loses digits."""

    def __init__(self, dtype):
        self.linear = nnx.Linear(5, 3, rngs=nnx.Rngs(0))
        self.dtype = dtype

    def __call__(self, x):
        return self.linear(x.astype(self.dtype).astype(x.dtype) if self.dtype else x)


class Twin(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(5, 3)

    def forward(self, x):
        return self.linear(x)


@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize("lossy", [False, True])
def test_lost_digits(dtype, lossy):
    """A layer that rounds as it should is within its bound, one that rounds more is far out."""
    inputs = [Input(name="x", shape=(4, 5), axes="bf")]
    with jax.enable_x64(True):
        pair = Pair(Lossy(LOSSY[dtype] if lossy else None), Twin(), inputs)
        error, bound, worst = rounding(pair, dtype, UNITS[dtype])
    assert (error > bound) == lossy
    assert bound < 16 * UNITS[dtype]
    assert worst


def test_without_noise():
    """What is zero but for rounding is zero; what is small is not."""
    found = without_noise({"a": np.ones(2), "b": np.full(2, 1e-17), "c": np.full(2, 1e-9)})
    assert found["b"].tolist() == [0, 0]
    assert found["c"].tolist() == [1e-9, 1e-9]


def test_order_of_sums():
    """A product of 3,136 terms is within its bound, in whatever order each side adds them."""
    inputs = [Input(name="x", shape=(8, 3136), axes="bf")]
    with jax.enable_x64(True):
        pair = Pair(nnx.Linear(3136, 16, rngs=nnx.Rngs(0)), torch.nn.Linear(3136, 16), inputs)
        error, bound, _ = rounding(pair, "float32", UNITS["float32"])
    assert error <= bound
