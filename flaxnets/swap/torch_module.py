"""An NNX model as a `torch.nn.Module` whose forward and backward passes are jitted JAX."""

import copyreg
import functools
import inspect
import itertools
import sys
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import torch
from einops import rearrange
from flax import nnx
from torch import nn

from flaxnets.bridge.convert import entries, modules, state_dict, tied
from flaxnets.layers import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from flaxnets.swap import opaque
from flaxnets.swap.arrays import Copy, SwapError, jax_dtype
from flaxnets.swap.flax_call import Call, Form, taken_apart
from torch_ref.arrays import tensor

HELD_BY_TORCH = nnx.Module | nnx.Variable | jax.Array | jax.ShapeDtypeStruct
MODES = {"deterministic", "use_running_average"}  # what differs between training and evaluation


def _reduced(function: Any) -> Any:
    """A function of a module, such as `jax.nn.relu`, by its name, for pickle."""
    home = sys.modules.get(function.__module__)
    known = getattr(home, function.__qualname__, None) is function
    return function.__qualname__ if known else object.__reduce_ex__(function, 2)


copyreg.pickle(jax.custom_jvp, _reduced)  # which pickle takes for the function inside


def as_torch(
    model: nnx.Module,
    *,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    copy: Copy = "warn",
) -> "FlaxModule":
    """A torch module that computes what an NNX model computes, in jitted JAX.

    It holds `nn.Parameter`s and buffers of its own under the names and in the layouts of the
    torch twin, by the bridge's rules and so also for a model of your own; they begin with the
    model's values, and the model stays as it is. Submodules and methods can be called, too.
    Images are channels first, as everywhere in torch. `train()` and `eval()` reach every part
    that behaves differently, running statistics are buffers, and dropout draws from torch's
    generator.

    Args:
        model: of layers that the bridge knows, or with bare parameters.
        inputs: the axes of each input of the model, as in "bhwc" or "btf"; those with a c come
            in with their channels second. None takes real inputs of four and five axes for
            images.
        outputs: of each output, likewise; None takes those for images that have as many axes as
            an image among the inputs, or as what a convolution of the model in two or three
            dimensions gives.
        copy: what happens to an input whose memory cannot be shared with JAX: "warn" copies it
            with a `CopyWarning`, "allow" in silence, "never" is an error.

    Raises:
        bridge.BridgeError: a layer whose weights the bridge does not know.

    >>> from flaxnets import create
    >>> network = as_torch(create("lenet"))
    >>> network(torch.zeros(2, 1, 32, 32)).shape, network.conv1.weight.shape
    (torch.Size([2, 10]), torch.Size([6, 1, 5, 5]))
    """
    values = {name: tensor(array) for name, array in state_dict(model).items()}
    trained = {entry.name for entry in entries(model) if isinstance(entry.variable, nnx.Param)}
    copies = tied(model)
    root = FlaxModule(_without_values(model), copy, inputs, outputs)
    for _, name, part in modules(root.model):
        if name:
            _place(root, name, FlaxModule(part, copy, None, None))
    placed: dict[str, nn.Parameter] = {}
    for name, value in values.items():
        owner, _, last = name.rpartition(".")
        source = copies.get(name, name)
        if source in trained:
            placed.setdefault(source, nn.Parameter(values[source]))
            root.get_submodule(owner).register_parameter(last, placed[source])
        else:
            root.get_submodule(owner).register_buffer(last, value)
    return root


def _place(root: nn.Module, name: str, part: nn.Module) -> None:
    """Hang a module under its name, with bare containers where NNX has lists."""
    *above, last = name.split(".")
    for step in above:
        if step not in root._modules:
            root.add_module(step, nn.Module())
        root = root.get_submodule(step)
    root.add_module(last, part)


def _without_values(model: nnx.Module) -> Any:
    """The model with shapes in place of its weights."""
    graph, state = nnx.split(model)
    paths = {entry.path for entry in entries(model)}
    flat = [
        (path, variable.replace(jax.ShapeDtypeStruct(variable.shape, variable.dtype)))
        if path in paths
        else (path, variable)
        for path, variable in nnx.to_flat_state(state)
    ]
    return nnx.merge(graph, nnx.from_flat_state(flat))


class FlaxModule(nn.Module):
    """What `as_torch` makes of a model and of each of its parts.

    Attributes:
        model: the NNX model, with shapes in place of its weights.
    """

    def __init__(
        self,
        model: nnx.Module,
        copy: Copy,
        inputs: Sequence[str] | None,
        outputs: Sequence[str] | None,
    ) -> None:
        super().__init__()
        self.model, self.copy = model, copy
        self._axes = tuple(axes and tuple(axes) for axes in (inputs, outputs))
        weights = entries(model)
        self._params = [entry for entry in weights if isinstance(entry.variable, nnx.Param)]
        self._statistics = [entry for entry in weights if entry not in self._params]
        self._modal = [(path, name) for path, name, part in modules(model) if _has_modes(part)]
        dims = {_dims(part) for _, _, part in modules(model)}
        self._convolved = {count + 2 for count in dims if count > 1}
        self._has_generator = bool(jax.tree.leaves(nnx.state(model, nnx.RngState)))
        self._calls: dict[Hashable, Call] = {}
        self._number = opaque.number(self)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model computes."""
        plain = not kwargs and all(isinstance(x, torch.Tensor) for x in args)
        if torch.compiler.is_compiling() and plain:
            return self._compiled(*args)
        return self._compute("__call__", args, kwargs)

    def __getattr__(self, name: str) -> Any:
        """What torch holds, as ever; then the model's own methods and plain attributes."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            model = self.__dict__.get("model")
            found = None if name.startswith("_") else getattr(model, name, None)
            if found is None or isinstance(found, HELD_BY_TORCH):
                raise
        return functools.partial(self._compute_by_name, name) if callable(found) else found

    def __getstate__(self) -> dict[str, Any]:
        """All but what is compiled."""
        return self.__dict__ | {"_calls": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A module of its own."""
        super().__setstate__(state)
        self._number = opaque.number(self)

    def extra_repr(self) -> str:
        """The model's class."""
        return f"{type(self.model).__name__} in JAX"

    def _compute_by_name(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._compute(method, args, kwargs)

    @torch.compiler.disable  # what `_compiled` does not do
    def _compute(self, method: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        given, form = taken_apart(args, kwargs)
        params, statistics, seed = self._held(method)
        narrow = _narrow(params, given)
        training = tuple(self.get_submodule(name).training for _, name in self._modal)
        call = self._call(
            method, form, training, tuple(map(self._is_image, given, itertools.count())), narrow
        )
        outputs, after = call([*params, *map(_remembered, statistics), seed, *given])
        with torch.no_grad():
            for value, new in zip(statistics, after, strict=any(training)):
                value.copy_(new)
        return outputs

    def _compiled(self, *given: torch.Tensor) -> Any:
        """The same as one operation of a graph of `torch.compile`'s."""
        params, statistics, seed = self._held("__call__")
        narrow = _narrow(params, given)
        modes = "".join("ET"[self.get_submodule(name).training] for _, name in self._modal)
        name = "" if narrow is None else str(narrow).removeprefix("torch.")
        tensors = [*params, *map(_remembered, statistics), seed, *given]
        found = opaque.compute(tensors, self._number, modes, name, len(given))
        count = len(found) - (len(statistics) if "T" in modes else 0)
        with torch.no_grad():
            for value, new in zip(statistics, found[count:], strict="T" in modes):
                value.copy_(new)
        return found[0] if count == 1 else tuple(found[:count])

    def call_of(self, given: Sequence[torch.Tensor], modes: str, narrow: str) -> Call:
        """The computation of `forward` for plain tensors, for `opaque`."""
        _, form = taken_apart(tuple(given), {})
        images = tuple(map(self._is_image, given, itertools.count()))
        dtype = getattr(torch, narrow) if narrow else None
        return self._call("__call__", form, tuple(mode == "T" for mode in modes), images, dtype)

    def _held(self, method: str) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
        """Parameters and statistics as they are now, and a seed from torch where one is needed."""
        params = [_at(self, entry.name) for entry in self._params]
        statistics = [_at(self, entry.name) for entry in self._statistics]
        draws = self._has_generator or self._takes_rngs(method)
        if self._modal and not any(self.get_submodule(name).training for _, name in self._modal):
            draws = False
        if not draws:
            return params, statistics, torch.zeros(2, dtype=torch.int32)
        return params, statistics, torch.randint(-(2**31), 2**31, (2,), dtype=torch.int32)

    def _takes_rngs(self, method: str) -> bool:
        return "rngs" in inspect.signature(getattr(self.model, method)).parameters

    def _is_image(self, array: torch.Tensor, index: int) -> bool:
        axes = self._axes[0]
        if axes is None:
            return array.is_floating_point() and array.ndim in (4, 5)
        return index < len(axes) and "c" in axes[index]

    def _call(self, *key: Any) -> Call:
        """What `_new_call` makes of these, once."""
        if key not in self._calls:
            self._calls[key] = self._new_call(*key)
        return self._calls[key]

    def _new_call(
        self,
        method: str,
        form: Form,
        modes: tuple[bool, ...],
        images: tuple[bool, ...],
        narrow: torch.dtype | None,
    ) -> Call:
        """The computation of one method for one form of its arguments, in one mode."""
        training = [path for (path, _), mode in zip(self._modal, modes, strict=True) if mode]
        model = self.model
        for chosen in (True, False):
            model = nnx.view(
                model,
                only=lambda path, _, chosen=chosen: chosen or tuple(path) in training,
                raise_if_not_found=False,
                **dict.fromkeys(MODES, chosen),
            )
        graph, state = nnx.split(model)
        flat = nnx.to_flat_state(state)
        weights = [*self._params, *self._statistics]
        places = {entry.path: index for index, entry in enumerate(weights)}
        takes_rngs = self._takes_rngs(method)

        def value(number: int, path: tuple, variable: Any, arrays: Sequence, key: jax.Array) -> Any:
            if path in places:
                pattern = weights[places[path]].leaf.to_flax()
                array = arrays[places[path]]
                array = rearrange(array, pattern) if pattern else array
                return _cast(array, narrow) if isinstance(variable, nnx.Param) else array
            if isinstance(variable, nnx.RngKey):
                return jax.random.fold_in(key, number)
            return variable[...] * 0 if isinstance(variable, nnx.RngCount) else variable[...]

        def function(*arrays: jax.Array) -> Any:
            *held, seed = arrays[: len(weights) + 1]
            key = jax.random.wrap_key_data(jax.lax.bitcast_convert_type(seed, jnp.uint32))
            values = [
                (path, variable.replace(value(number, path, variable, held, key)))
                for number, (path, variable) in enumerate(flat)
            ]
            model = nnx.merge(graph, nnx.from_flat_state(values), copy=True)
            given = [
                jnp.moveaxis(_cast(array, narrow), 1, -1) if image else _cast(array, narrow)
                for array, image in zip(arrays[len(weights) + 1 :], images, strict=True)
            ]
            sizes = {array.ndim for array, image in zip(given, images, strict=True) if image}
            sizes |= self._convolved
            args, kwargs = form.filled(given)
            if takes_rngs:
                kwargs = {"rngs": nnx.Rngs(key)} | kwargs
            outputs = getattr(model, method)(*args, **kwargs)
            after = dict(nnx.to_flat_state(nnx.state(model))) if training else {}
            return self._channels_first(outputs, sizes), [
                rearrange(after[entry.path][...], entry.leaf.to_torch() or "... -> ...")
                for entry in self._statistics
                if entry.path in after
            ]

        names = [f"parameter {entry.name}" for entry in self._params]
        names += [f"buffer {entry.name}" for entry in self._statistics]
        names += ["the seed", *(f"input {index}" for index in range(len(images)))]
        return Call(function, names, self.copy, len(self._params))

    def _channels_first(self, outputs: Any, sizes: set[int]) -> Any:
        axes = self._axes[1]
        leaves, tree = jax.tree.flatten(outputs)
        moved = [
            array.ndim in sizes if axes is None else index < len(axes) and "c" in axes[index]
            for index, array in enumerate(leaves)
        ]
        leaves = [
            jnp.moveaxis(array, -1, 1) if image else array
            for array, image in zip(leaves, moved, strict=True)
        ]
        return jax.tree.unflatten(tree, leaves)


def _remembered(statistic: torch.Tensor) -> torch.Tensor:
    """A copy, since a gradient must not remember what is written to after the call."""
    return statistic.int() if statistic.dtype == torch.int64 else statistic.clone()


def _at(module: nn.Module, name: str) -> torch.Tensor:
    owner, _, last = name.rpartition(".")
    return getattr(module.get_submodule(owner), last)


def _dims(part: nnx.Module) -> int:
    """Of a convolution, the number of its spatial axes; else 0."""
    if isinstance(part, ConvTranspose1d | ConvTranspose2d | ConvTranspose3d):
        return part.dims
    return len(part.kernel_size) if isinstance(part, nnx.Conv | nnx.ConvTranspose) else 0


def _has_modes(part: nnx.Module) -> bool:
    set_view = getattr(part, "set_view", None)
    return set_view is not None and not MODES.isdisjoint(inspect.signature(set_view).parameters)


def _cast(array: jax.Array, narrow: torch.dtype | None) -> jax.Array:
    if narrow is None or not jnp.issubdtype(array.dtype, jnp.floating):
        return array
    return array.astype(jax_dtype(narrow))


def _narrow(params: Sequence[torch.Tensor], given: Sequence[torch.Tensor]) -> torch.dtype | None:
    """What autocast computes in, if it is on.

    Raises:
        SwapError: an input on another device than the parameters, or of another real dtype.
    """
    if not params:
        return None
    device, dtype = params[0].device, params[0].dtype
    for index, array in enumerate(given):
        if array.device != device:
            raise SwapError(
                f"input {index} is on {array.device}, the parameters are on {device}; "
                "move one of them"
            )
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    for index, array in enumerate(given):
        if array.is_floating_point() and array.dtype != dtype:
            raise SwapError(
                f"input {index} is {array.dtype}, the parameters are {dtype}; convert one of them"
            )
    return None
