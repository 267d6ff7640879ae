"""The operation that `torch.compile` sees: its real run, its shapes and its gradient agree."""

import copy

import torch
from flax import nnx

from flaxnets import layers, swap
from flaxnets.swap import opaque


def _arguments(module, x):
    params, statistics, seed = module._held("__call__")
    tensors = [*params, *(value.clone() for value in statistics), seed, x]
    return tensors, module._number, "", "", 1


def test_operation():
    """Torch's own test of operators: schema, shapes without values, gradient, compilation."""
    module = swap.as_torch(nnx.Sequential(layers.Linear(3, 2, rngs=nnx.Rngs(0)), layers.Tanh()))
    arguments = _arguments(module, torch.randn(4, 3, requires_grad=True))
    torch.library.opcheck(opaque.compute, arguments)
    (found,) = opaque.compute(*arguments)
    torch.testing.assert_close(found, module(arguments[0][-1]))


def test_numbers():
    """Every copy of a module has a number of its own."""
    module = swap.as_torch(layers.Linear(3, 2, rngs=nnx.Rngs(0)))
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.bias.add_(1)
    x = torch.zeros(1, 3)
    for one in (module, other):
        torch.testing.assert_close(opaque.compute(*_arguments(one, x))[0], one(x))
