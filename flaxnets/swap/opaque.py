"""What `torch.compile` sees of a module in JAX: one operation, with shapes and a gradient."""

import itertools
import weakref
from collections.abc import Sequence
from typing import Any

import jax
import torch

from flaxnets.swap.arrays import jax_dtype, to_torch, torch_dtype
from flaxnets.swap.flax_call import Call, precision

_modules: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def number(module: Any) -> int:
    """A number by which a compiled program finds a module, as long as that lives."""
    new = next(_numbers)
    _modules[new] = module
    return new


@torch.library.custom_op("flaxnets::compute", mutates_args=())
def compute(
    tensors: list[torch.Tensor], module: int, modes: str, narrow: str, inputs: int
) -> list[torch.Tensor]:
    """Outputs of a module, then its statistics.

    Args:
        tensors: parameters, statistics, seed and inputs of the module.
        module: its number.
        modes: of its parts that have one, a T for each in training and an E in evaluation.
        narrow: the dtype of autocast, or "".
        inputs: how many of the tensors are inputs.
    """
    call = _modules[module].call_of(tensors[len(tensors) - inputs :], modes, narrow)
    return _run(call, tensors)


@compute.register_fake
def _(tensors, module, modes, narrow, inputs):
    call = _modules[module].call_of(tensors[len(tensors) - inputs :], modes, narrow)
    return _shapes(call, tensors)


@torch.library.custom_op("flaxnets::gradient", mutates_args=())
def gradient(
    tensors: list[torch.Tensor],
    cotangents: list[torch.Tensor],
    wanted: list[int],
    module: int,
    modes: str,
    narrow: str,
    inputs: int,
) -> list[torch.Tensor]:
    """Gradients of some of the tensors of `compute`, from those of its real outputs."""
    call = _modules[module].call_of(tensors[len(tensors) - inputs :], modes, narrow)
    return _run(call.gradient(tuple(wanted), len(cotangents)), [*tensors, *cotangents])


@gradient.register_fake
def _(tensors, cotangents, wanted, module, modes, narrow, inputs):
    return [torch.empty_like(tensors[index]) for index in wanted]


def _setup_context(ctx, inputs, output):
    tensors, *ctx.rest = inputs
    call = _modules[ctx.rest[0]].call_of(tensors[len(tensors) - ctx.rest[-1] :], *ctx.rest[1:3])
    with precision(tensors):
        outputs, _ = jax.eval_shape(call.function, *_structs(tensors))
    ctx.real = [x.is_floating_point() for x in output[: len(jax.tree.leaves(outputs))]]
    ctx.like = [(x.shape, x.dtype) for x in output]
    ctx.save_for_backward(*tensors)


def _backward(ctx, cotangents):
    tensors = list(ctx.saved_tensors)
    given = [
        tensors[0].new_zeros(shape, dtype=dtype) if cotangent is None else cotangent
        for cotangent, real, (shape, dtype) in zip(cotangents, ctx.real, ctx.like, strict=False)
        if real
    ]
    wanted = [index for index, tensor in enumerate(tensors) if tensor.requires_grad]
    found = iter(gradient(tensors, given, wanted, *ctx.rest))
    gradients = [next(found) if tensor.requires_grad else None for tensor in tensors]
    return gradients, None, None, None, None


compute.register_autograd(_backward, setup_context=_setup_context)


def _run(call: Call, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    with precision(tensors):
        return list(map(to_torch, jax.tree.leaves(call.run(*call.arrays(tensors)))))


def _shapes(call: Call, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    with precision(tensors):
        found = jax.tree.leaves(jax.eval_shape(call.function, *_structs(tensors)))
    return [tensors[0].new_empty(x.shape, dtype=torch_dtype(x.dtype)) for x in found]


def _structs(tensors: Sequence[torch.Tensor]) -> list[jax.ShapeDtypeStruct]:
    return [
        jax.ShapeDtypeStruct(
            tuple(map(int, x.shape)), jax.dtypes.canonicalize_dtype(jax_dtype(x.dtype))
        )
        for x in tensors
    ]
