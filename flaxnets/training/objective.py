"""How a step asks for a loss: `objective(model, batch, rngs) -> loss, metrics`."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

Objective = Callable[[nnx.Module, Any, nnx.Rngs], tuple[jax.Array, dict[str, jax.Array]]]


def apply(model: Any, rngs: nnx.Rngs | None, *inputs: Any) -> Any:
    """The outputs of a model, which gets `rngs` if it is one that takes them.

    A model computes in the dtype of its weights, which real inputs are cast to; losses are
    computed in float32 at least.

    >>> apply(lambda x: x + 1, nnx.Rngs(0), 1)
    2
    """
    call = model.__call__ if isinstance(model, nnx.Module) else model
    takes = "rngs" in inspect.signature(call).parameters
    options = {"rngs": rngs} if takes else {}
    if not isinstance(model, nnx.Module):
        return model(*inputs, **options)
    weights = (x.dtype for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    dtype = next((x for x in weights if jnp.issubdtype(x, jnp.floating)), None)
    if dtype is None:
        return model(*inputs, **options)
    outputs = model(*_cast(inputs, dtype), **options)
    return _cast(outputs, jnp.float32) if jnp.finfo(dtype).bits < 32 else outputs


def _cast(arrays: Any, dtype: Any) -> Any:
    def cast(x: Any) -> Any:
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(cast, arrays)


def together(inputs: Any) -> tuple:
    """A batch's inputs, one array or a tuple of several, as a tuple.

    >>> together(1), together((1, 2))
    ((1,), (1, 2))
    """
    return inputs if isinstance(inputs, tuple) else (inputs,)
