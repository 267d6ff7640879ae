"""A torch function of tensors as one of JAX arrays: in `jit`, `grad`, `scan` and `vmap`."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from flaxnets.swap.arrays import SwapError, has_x64, jax_dtype, require_jax, torch_dtype
from flaxnets.swap.host_call import host_call


def torch_function(function: Callable) -> Callable:
    """A function of torch tensors as one of JAX arrays, with gradients where torch has them.

    It runs in torch, on the memory of JAX, and may stand inside `jax.jit`,
    `jax.grad`, `jax.vjp`, `lax.scan` and, one row after the other, `jax.vmap`. The gradient
    computes the function once more. Shapes of outputs must not depend on values, and integers of
    32 bits arrive as torch's of 64.

    Args:
        function: of tensors in any pytree of positional and keyword arguments; returns a pytree
            of tensors, and does not remember anything. Arguments that are no arrays are constants.

    Raises:
        SwapError: when called, what the function returns is no pytree of tensors, holds float64
            where JAX has no x64, or has a shape that depends on values.
        JaxRuntimeError: what the function raises inside a program, where its results are waited
            for.

    >>> metric = torch_function(lambda x, y: torch.nn.functional.l1_loss(x, y))
    >>> jax.jit(jax.grad(metric))(jnp.array([1.0, 3.0]), jnp.zeros(2)).tolist()
    [0.5, 0.5]
    """
    known: dict[Any, Host] = {}

    def called(*args: Any, **kwargs: Any) -> Any:
        require_jax()
        leaves, tree = jax.tree.flatten((args, kwargs))
        is_array = [hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves]
        constants = tuple(
            None if array else leaf for leaf, array in zip(leaves, is_array, strict=True)
        )
        key = tree, constants, tuple(is_array)

        def on_tensors(tensors: Sequence[torch.Tensor]) -> Any:
            given = iter(tensors)
            filled = [
                next(given) if array else constant
                for constant, array in zip(constants, is_array, strict=True)
            ]
            args, kwargs = jax.tree.unflatten(tree, filled)
            return function(*args, **kwargs)

        host = known.setdefault(key, Host(on_tensors))
        arrays = [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]
        return host(*map(jnp.asarray, arrays))

    return called


class Host:
    """A function of a list of tensors that JAX calls and differentiates, any number of times.

    Args:
        function: of the tensors; returns a pytree of tensors.
        draws: whether the last tensor is a seed that all random numbers come from.

    Attributes:
        drew: whether the function drew any when it was tried out.
    """

    def __init__(self, function: Callable[[list[torch.Tensor]], Any], draws: bool = False) -> None:
        self.function, self.draws, self.drew = function, draws, False
        self._tried: dict[Any, tuple[Any, tuple[jax.ShapeDtypeStruct, ...]]] = {}
        self._written: set[int] = set()  # tensors that the function writes to
        self._gradients: dict[int, Host] = {}

    def __call__(self, *arrays: jax.Array) -> Any:
        """The function's pytree, of arrays."""
        tree, results = self.results(*arrays)
        return jax.tree.unflatten(tree, _differentiable(self, results, *arrays))

    def results(self, *arrays: jax.Array) -> tuple[Any, tuple[jax.ShapeDtypeStruct, ...]]:
        """The structure, shapes and dtypes of what it returns, seen by trying it out on ones.

        Raises:
            SwapError: something that is no tensor, or float64 without x64.
        """
        wide = has_x64()
        key = wide, *((array.shape, array.dtype) for array in arrays)
        if key not in self._tried:
            ones = [torch.ones(x.shape, dtype=torch_dtype(x.dtype)) for x in arrays]
            given = [_as_torch_counts(x) for x in ones]
            with torch.no_grad(), self._seeded(given) as drawn:
                outputs, tree = jax.tree.flatten(self.function(given))
            self.drew = self.drew or (drawn is not None and drawn.drew)
            self._written |= {i for i, tensor in enumerate(given) if tensor._version}
            self._tried[key] = tree, tuple(_result(output, wide) for output in outputs)
        return self._tried[key]

    def forward(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """What the function returns, as a list."""
        with torch.no_grad():
            return jax.tree.leaves(self._applied(tensors))

    def gradient(self, count: int) -> "Host":
        """From the first `count` tensors and gradients of real outputs to gradients of these."""
        if count not in self._gradients:

            def function(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
                again = torch.is_grad_enabled()  # the gradient is to be differentiated itself
                with torch.enable_grad():
                    given = [x if again else x.detach() for x in tensors[:count]]
                    wanted = [x.requires_grad_() for x in given if x.is_floating_point()]
                    outputs = jax.tree.leaves(self._applied(given))
                    real = [x for x in outputs if x.is_floating_point()]
                    cotangents = tensors[count:]
                    pairs = [
                        (x, cotangent)
                        for x, cotangent in zip(real, cotangents, strict=True)
                        if x.requires_grad
                    ]
                    if not pairs or not wanted:
                        return [torch.zeros_like(x) for x in wanted]
                    outputs, cotangents = map(list, zip(*pairs, strict=True))
                    found = torch.autograd.grad(
                        outputs, wanted, cotangents, create_graph=again, materialize_grads=True
                    )
                    return list(found)

            self._gradients[count] = Host(function)
        return self._gradients[count]

    def _applied(self, tensors: list[torch.Tensor]) -> Any:
        """The function's pytree; it gets copies of what it writes to.

        Raises:
            SwapError: the function writes where it did not when it was tried out.
        """
        tensors = [_as_torch_counts(x) for x in tensors]
        given = [x.clone() if i in self._written else x for i, x in enumerate(tensors)]
        before = [x._version for x in tensors]
        with self._seeded(given):
            outputs = self.function(given)
        for index, (x, version) in enumerate(zip(tensors, before, strict=True)):
            if x._version != version:
                raise SwapError(f"argument {index} is JAX's and was written to; clone it first")
        return outputs

    def _seeded(self, tensors: list[torch.Tensor]) -> Any:
        if not self.draws:
            return contextlib.nullcontext()
        return Seeded(int(tensors.pop()))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _differentiable(host: Host, results: tuple, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(host_call(host.forward, results, *arrays))


def _forward(host: Host, results: tuple, *arrays: jax.Array) -> Any:
    return _differentiable(host, results, *arrays), arrays


def _backward(host: Host, results: tuple, arrays: tuple, cotangents: tuple) -> tuple:
    given = [c for c, result in zip(cotangents, results, strict=True) if _is_real(result)]
    found = iter(host.gradient(len(arrays))(*arrays, *given))
    return tuple(next(found) if _is_real(array) else None for array in arrays)


_differentiable.defvjp(_forward, _backward)


class Seeded(TorchDispatchMode):
    """While open, this thread draws from a generator of its own, whatever others draw.

    Attributes:
        drew: whether anything was drawn.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)
        self.drew = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Give every operation that draws the generator."""
        kwargs = kwargs or {}
        aten = torch.ops.aten
        if func in (aten.rand_like.default, aten.randn_like.default):
            self.drew = True
            empty = torch.empty_like(*args, **kwargs)
            fill = empty.uniform_ if func is aten.rand_like.default else empty.normal_
            return fill(generator=self.generator)
        if func is aten.native_dropout.default:
            self.drew = True
            x, p, train = args
            if not train:
                return x.clone(), torch.ones_like(x, dtype=torch.bool)
            kept = torch.empty_like(x).bernoulli_(1 - p, generator=self.generator).bool()
            return x * kept / (1 - p), kept
        told = {argument.name: argument.default_value for argument in func._schema.arguments}
        if "generator" not in told:
            told |= dict(zip(told, args, strict=False)) | kwargs
            if torch.Tag.nondeterministic_seeded not in func.tags or told.get("dropout_p") == 0:
                return func(*args, **kwargs)
            name = f"{func._overloadname}_generator".removeprefix("default_")
            if not hasattr(func.overloadpacket, name):
                raise SwapError(f"{func} draws numbers that no generator can give it")
            func = getattr(func.overloadpacket, name)
        self.drew = True
        return func(*args, **{**kwargs, "generator": self.generator})


def _as_torch_counts(x: torch.Tensor) -> torch.Tensor:
    """Integers of 64 bits in place of 32, as torch indexes."""
    return x.long() if x.dtype == torch.int32 else x


def _result(output: Any, wide: bool) -> jax.ShapeDtypeStruct:
    if not isinstance(output, torch.Tensor):
        raise SwapError(f"the function returns a {type(output).__name__}; return tensors")
    dtype = jax_dtype(output.dtype)
    if not wide and dtype in (jnp.float64, jnp.complex128):
        raise SwapError(f"an output is {output.dtype}, which JAX has under jax.enable_x64 alone")
    if not wide and dtype == jnp.int64:
        dtype = jnp.dtype("int32")
    return jax.ShapeDtypeStruct(tuple(output.shape), dtype)


def _is_real(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.inexact)
