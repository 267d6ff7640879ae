"""One backend in place of the other inside research code that already works."""

from flaxnets.swap.arrays import CopyWarning, SwapError, to_jax, to_torch
from flaxnets.swap.as_torch import as_torch
from flaxnets.swap.flax_function import flax_function

__all__ = ["as_torch", "flax_function", "to_jax", "to_torch", "SwapError", "CopyWarning"]
