"""One call of a submodule repeated alone: its gradients, jitted, and in another precision."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch.nn.utils.rnn import PackedSequence

from flaxnets import bridge
from flaxnets.parity.diagnosis.trace import Arrays, Call, align
from flaxnets.parity.pair import TORCH_DTYPES, Pair, named

SEED = 0  # of the projection that gradients are taken of


def gradients(
    pair: Pair, truth: Call, other: Call, dtype: str = "float64"
) -> tuple[Arrays, Arrays]:
    """Gradients of both sides' layer alone, of the same inputs and the same projection.

    Args:
        pair: of models.
        truth: the torch side's call, in evaluation mode.
        other: the Flax side's.
        dtype: that the layer is called in.

    Returns:
        Gradients of torch's and of Flax's inputs ("input 0") and parameters, in torch's layouts.
    """
    rng = np.random.Generator(np.random.Philox(SEED))
    cotangents = {
        name: rng.standard_normal(array.shape, np.float32) for name, array in truth.outputs.items()
    }
    theirs = _torch_gradients(truth, cotangents, TORCH_DTYPES[dtype])
    moved = {
        name: np.moveaxis(cotangent, 1, -1)
        if pair._channels_last(other.outputs[name], truth.outputs[name])
        else cotangent
        for name, cotangent in cotangents.items()
    }
    ours = _flax_gradients(other, moved, dtype)
    return theirs, {
        name: align(pair, theirs[name], array) if name in theirs else array
        for name, array in ours.items()
    }


def _torch_gradients(call: Call, cotangents: Arrays, dtype: torch.dtype) -> Arrays:
    wanted: dict[str, torch.Tensor] = {}
    shown: dict[str, Callable] = {}

    def live(value):
        if isinstance(value, PackedSequence):
            data = value.data.detach().to(dtype).requires_grad_()
            shown[f"input {len(wanted)}"] = lambda grad: PackedSequence(grad, *value[1:])
            wanted[f"input {len(wanted)}"] = data
            return PackedSequence(data, *value[1:])
        if torch.is_tensor(value) and value.is_floating_point():
            value = value.detach().to(dtype).requires_grad_()
            wanted[f"input {len(wanted)}"] = value
        return type(value)(map(live, value)) if isinstance(value, list | tuple) else value

    module = call.module.to(dtype)
    outputs = named(module(*map(live, call.args), **call.kwargs))
    wanted |= dict(module.named_parameters())
    loss = torch.stack(
        [(x * torch.tensor(cotangents[name]).to(dtype)).sum() for name, x in outputs.items()]
    ).sum()
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    grads = {
        name: torch.zeros_like(value) if grad is None else grad
        for (name, value), grad in zip(wanted.items(), found, strict=True)
    }
    module.to(torch.float64)
    return {
        name: next(iter(named(shown[name](grad) if name in shown else grad).values()))
        .detach()
        .to(torch.float64)
        .numpy()
        for name, grad in grads.items()
    }


def _flax_gradients(call: Call, cotangents: Arrays, dtype: str) -> Arrays:
    graph, params, rest = nnx.split(_cast(call.module, dtype), nnx.Param, ...)  # type: ignore[misc]
    leaves, tree = jax.tree.flatten(call.args)
    real = [i for i, x in enumerate(leaves) if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)]

    def projected(params, given):
        whole = list(leaves)
        for index, x in zip(real, given, strict=True):
            whole[index] = x
        module = nnx.merge(graph, params, rest, copy=True)
        outputs = named(module(*jax.tree.unflatten(tree, whole), **call.kwargs))
        return sum(
            (outputs[name] * jnp.asarray(cotangent, dtype)).sum()
            for name, cotangent in cotangents.items()
        )

    given = [jnp.asarray(leaves[i], dtype) for i in real]
    of_params, of_given = jax.jit(jax.grad(projected, argnums=(0, 1)))(params, given)
    found = {f"input {i}": grad for i, grad in enumerate(of_given)}
    found |= bridge.state_dict(call.module, of_params)
    return {name: np.asarray(grad).astype(np.float64) for name, grad in found.items()}


def _cast(module: nnx.Module, dtype: str) -> nnx.Module:
    graph, state = nnx.split(module)
    return nnx.merge(graph, jax.tree.map(lambda x: _as(x, dtype), state))


def _as(x: Any, dtype: str) -> Any:
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x


def function(call: Call, dtype: str = "float64") -> tuple[Callable, tuple]:
    """A call of a Flax module as a pure function of its weights and inputs, and these."""
    graph, state = nnx.split(_cast(call.module, dtype))

    def run(state, args):
        return named(nnx.merge(graph, state, copy=True)(*args, **call.kwargs))

    return run, (state, jax.tree.map(lambda x: _as(jnp.asarray(x), dtype), call.args))


def in_torch(call: Call, dtype: str) -> Arrays:
    """The outputs of a torch layer in a dtype, as float64."""
    kind = TORCH_DTYPES[dtype]

    def cast(value):
        if isinstance(value, PackedSequence):
            return PackedSequence(value.data.to(kind), *value[1:])
        if torch.is_tensor(value) and value.is_floating_point():
            return value.to(kind)
        return type(value)(map(cast, value)) if isinstance(value, list | tuple) else value

    module = call.module.to(kind)
    with torch.no_grad():
        outputs = named(module(*map(cast, call.args), **call.kwargs))
    module.to(torch.float64)
    return {name: x.to(torch.float64).numpy() for name, x in outputs.items()}
