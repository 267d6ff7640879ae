"""One backend in place of the other inside research code that already works."""

from flaxnets.swap.arrays import CopyWarning, SwapError, to_jax, to_torch
from flaxnets.swap.as_flax import as_flax
from flaxnets.swap.as_torch import as_torch
from flaxnets.swap.flax_function import flax_function
from flaxnets.swap.torch_function import torch_function

__all__ = [
    "as_torch",
    "as_flax",
    "flax_function",
    "torch_function",
    "to_jax",
    "to_torch",
    "SwapError",
    "CopyWarning",
]
