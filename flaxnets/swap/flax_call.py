"""A JAX function as an operation of torch's: jitted, differentiable, on shared memory."""

import contextlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import torch

from flaxnets.swap.arrays import Copy, SwapError, require_jax, to_jax, to_torch
from flaxnets.swap.host_call import inside


def flax_function(function: Callable, *, copy: Copy = "warn") -> Callable:
    """A function of JAX arrays as one of torch tensors, gradients included, of any order.

    It is compiled once for every structure, shape and dtype of its arguments. Gradients flow to
    every real tensor that asks for them.

    Args:
        function: of arrays in any pytree of positional and keyword arguments, pure; returns a
            pytree of arrays. Arguments that are no tensors are constants.
        copy: what happens to an argument whose memory cannot be shared, see `to_jax`; a gradient
            that repeats one number, as that of a sum, is copied in any case.

    Raises:
        SwapError: when called, an argument that JAX cannot take, or a process that was forked from
            one where JAX was at work.

    >>> loss = flax_function(lambda x, y: jnp.mean((x - y) ** 2))
    >>> x = torch.tensor([1.0, 3.0], requires_grad=True)
    >>> loss(x, torch.zeros(2)).backward()
    >>> x.grad
    tensor([1., 3.])
    """
    calls: dict[Hashable, Call] = {}

    def called(*args: Any, **kwargs: Any) -> Any:
        tensors, form = taken_apart(args, kwargs)
        if form not in calls:
            names = [f"argument {i}" for i in range(len(tensors))]
            calls[form] = Call(lambda *arrays: (_applied(function, form, arrays), ()), names, copy)
        return calls[form](tensors)[0]

    return called


class Form(NamedTuple):
    """Arguments without their tensors.

    Attributes:
        tree: of the arguments.
        constants: leaves that are no tensors, and None where one is.
        of_tensor: which leaves are tensors.
    """

    tree: Any
    constants: tuple[Any, ...]
    of_tensor: tuple[bool, ...]

    def filled(self, arrays: Sequence[Any]) -> tuple[tuple, dict[str, Any]]:
        """Positional and keyword arguments with arrays in the places of the tensors."""
        given = iter(arrays)
        leaves = [
            next(given) if tensor else constant
            for constant, tensor in zip(self.constants, self.of_tensor, strict=True)
        ]
        return jax.tree.unflatten(self.tree, leaves)


def taken_apart(args: tuple, kwargs: dict[str, Any]) -> tuple[list[torch.Tensor], Form]:
    """The tensors among arguments, and the rest.

    Raises:
        SwapError: an argument that is neither a tensor nor a constant.

    >>> tensors, form = taken_apart((torch.ones(2), [3]), {})
    >>> len(tensors), form.constants
    (1, (None, 3))
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    of_tensor = tuple(isinstance(leaf, torch.Tensor) for leaf in leaves)
    constants = tuple(
        None if tensor else leaf for leaf, tensor in zip(leaves, of_tensor, strict=True)
    )
    for constant in constants:
        try:
            hash(constant)
        except TypeError:
            kind = type(constant).__name__
            raise SwapError(f"an argument is a {kind}; give a torch tensor or a constant") from None
    tensors = [leaf for leaf, tensor in zip(leaves, of_tensor, strict=True) if tensor]
    return tensors, Form(tree, constants, of_tensor)


def _applied(function: Callable, form: Form, arrays: Sequence[jax.Array]) -> Any:
    args, kwargs = form.filled(arrays)
    return function(*args, **kwargs)


class Call:
    """A pure JAX function of flat arrays that torch calls and differentiates.

    Args:
        function: of arrays; returns a pytree that is differentiated, and one that is not.
        names: of the arguments, for messages.
        copy: what happens to an argument whose memory cannot be shared.
        lasting: how many of the first arguments are the same tensors at every call, so that
            their arrays are kept.
    """

    def __init__(
        self, function: Callable, names: Sequence[str], copy: Copy, lasting: int = 0
    ) -> None:
        self.function, self.names, self.copy = function, names, copy
        self._lasting: list[tuple[Any, jax.Array] | None] = [None] * lasting
        self._gradients: dict[tuple[int, ...], Call] = {}
        self.run = jax.jit(function)
        self.forward = jax.jit(self._forward, static_argnums=0)
        self.backward = jax.jit(_backward, static_argnums=0)

    def __call__(self, tensors: Sequence[torch.Tensor]) -> tuple[Any, Any]:
        """The function's two pytrees, of tensors.

        Raises:
            SwapError: inside torch code that JAX has called.
        """
        if inside():
            raise SwapError("JAX cannot compute inside torch code that it has called itself")
        wanted: tuple[int, ...] = ()
        if torch.is_grad_enabled():
            wanted = tuple(i for i, tensor in enumerate(tensors) if tensor.requires_grad)
        if wanted:
            trees: list[Any] = []
            flat = iter(_Differentiable.apply(self, wanted, trees, *tensors))
            outputs, others = ([next(flat) for _ in range(tree.num_leaves)] for tree in trees)
            return tuple(map(jax.tree.unflatten, trees, (outputs, others)))
        with precision(tensors):
            return jax.tree.map(to_torch, self.run(*self.arrays(tensors)))

    def arrays(self, tensors: Sequence[torch.Tensor]) -> list[jax.Array]:
        """The arguments as JAX has them."""
        require_jax()
        if tensors and tensors[0].is_cuda:  # arrays that are kept do not know torch's stream
            torch.cuda.current_stream(tensors[0].device).synchronize()
        found = []
        for index, (tensor, name) in enumerate(zip(tensors, self.names, strict=True)):
            if index >= len(self._lasting):
                found.append(to_jax(tensor, self.copy, name))
                continue
            place = tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
            kept = self._lasting[index]
            if kept is None or kept[0] != place:
                kept = place, to_jax(tensor, self.copy, name)
                if kept[1].unsafe_buffer_pointer() == tensor.data_ptr():
                    self._lasting[index] = kept
            found.append(kept[1])
        return found

    def gradient(self, wanted: tuple[int, ...], outputs: int) -> "Call":
        """The function from all arguments and gradients of outputs to gradients of arguments.

        Args:
            wanted: the arguments whose gradients are asked for.
            outputs: how many real outputs there are.
        """
        if wanted not in self._gradients:

            def function(*arrays):
                given, cotangents = arrays[: len(self.names)], arrays[len(self.names) :]
                _, vjp, _ = jax.vjp(self._real(wanted, given), *_some(given, wanted), has_aux=True)
                return vjp(list(cotangents)), ()

            names = [*self.names, *(f"the gradient of output {i}" for i in range(outputs))]
            self._gradients[wanted] = Call(function, names, "allow", len(self._lasting))
        return self._gradients[wanted]

    def _real(self, wanted: tuple[int, ...], given: Sequence[jax.Array]) -> Callable:
        """The function of some of its arguments: its real outputs, then everything else."""

        def function(*some):
            whole = list(given)
            for index, array in zip(wanted, some, strict=True):
                whole[index] = array
            outputs, others = self.function(*whole)
            leaves, tree = jax.tree.flatten(outputs)
            leaves = [jnp.asarray(leaf) for leaf in leaves]
            real = [leaf for leaf in leaves if _is_real(leaf)]
            rest = [None if _is_real(leaf) else leaf for leaf in leaves]
            return real, (rest, tree, others)

        return function

    def _forward(self, wanted: tuple[int, ...], *arrays: jax.Array) -> Any:
        """Outputs, other outputs, and what their gradient needs besides the arguments."""
        real, vjp, (rest, tree, others) = jax.vjp(
            self._real(wanted, arrays), *_some(arrays, wanted), has_aux=True
        )
        given = iter(real)
        outputs = [next(given) if leaf is None else leaf for leaf in rest]
        places = {id(array): index for index, array in enumerate(arrays)}
        leaves, vjp_tree = jax.tree.flatten(vjp)
        kept = [leaf for leaf in leaves if id(leaf) not in places]
        told = tuple(places.get(id(leaf)) for leaf in leaves)
        return jax.tree.unflatten(tree, outputs), others, Residuals(kept, told, vjp_tree)


@jax.tree_util.register_pytree_node_class
class Residuals:
    """What a gradient needs; of arguments only their places, so that none is held twice."""

    def __init__(self, kept: Sequence[Any], places: tuple[int | None, ...], tree: Any) -> None:
        self.kept, self.places, self.tree = kept, places, tree

    def tree_flatten(self) -> tuple[Any, Any]:
        """The arrays, and the rest."""
        return (self.kept,), (self.places, self.tree)

    @classmethod
    def tree_unflatten(cls, rest: Any, children: Any) -> "Residuals":
        """The other way round."""
        return cls(*children, *rest)

    def vjp(self, arrays: Sequence[Any]) -> Callable:
        """The gradient's function, for the arguments that it was made with."""
        kept = iter(self.kept)
        leaves = [next(kept) if place is None else arrays[place] for place in self.places]
        return jax.tree.unflatten(self.tree, leaves)


def _backward(count: int, residuals: Residuals, *arrays: jax.Array) -> Any:
    return residuals.vjp(arrays[:count])(list(arrays[count:]))


class _Differentiable(torch.autograd.Function):
    """A `Call` in torch's graph.

    What JAX kept hangs on an empty tensor that is saved, so that torch frees both together.
    """

    @staticmethod
    def forward(ctx, call, wanted, trees, *tensors):
        with precision(tensors):
            outputs, others, residuals = call.forward(wanted, *call.arrays(tensors))
            found = [jax.tree.flatten(tree) for tree in (outputs, others)]
            trees += [tree for _, tree in found]
            flat, beside = (list(map(to_torch, leaves)) for leaves, _ in found)
        ctx.call, ctx.wanted, ctx.count = call, wanted, len(tensors)
        ctx.real = [output.is_floating_point() or output.is_complex() for output in flat]
        holder: Any = torch.empty(0)
        holder.residuals = residuals
        ctx.save_for_backward(*tensors, holder)
        integers = [x for x, real in zip(flat, ctx.real, strict=True) if not real]
        ctx.mark_non_differentiable(*integers, *beside)
        return (*flat, *beside)

    @staticmethod
    def backward(ctx, *cotangents):
        *tensors, holder = ctx.saved_tensors  # torch refuses those that were written to
        given = [x for x, real in zip(cotangents, ctx.real, strict=False) if real]
        call, residuals = ctx.call, getattr(holder, "residuals", None)
        if torch.is_grad_enabled() or residuals is None:  # to be differentiated, or packed away
            found, _ = call.gradient(ctx.wanted, len(given))([*tensors, *given])
        else:
            with precision(tensors):
                arrays = [to_jax(x, "allow") for x in given]
                found = call.backward(ctx.count, residuals, *call.arrays(tensors), *arrays)
                found = list(map(to_torch, found))
        gradients: list[torch.Tensor | None] = [None] * ctx.count
        for index, gradient in zip(ctx.wanted, found, strict=True):
            gradients[index] = gradient
        return (None, None, None, *gradients)


def _some(arrays: Sequence[Any], wanted: Sequence[int]) -> list[Any]:
    return [arrays[index] for index in wanted]


def _is_real(array: jax.Array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.inexact)


def precision(tensors: Sequence[torch.Tensor]) -> Any:
    """JAX's 64 bits where torch computes in them, and the user's own setting elsewhere."""
    wide = any(tensor.dtype in (torch.float64, torch.complex128) for tensor in tensors)
    return jax.enable_x64(True) if wide else contextlib.nullcontext()
