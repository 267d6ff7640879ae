"""A Flax model and a torch model side by side, with the same weights and inputs.

Weights, buffers and inputs are random numbers that float32 holds exactly, so that float32 and
float64 runs start from the same point. Axes: see `flaxnets.specs.Input`.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from flaxnets import bridge, compile_options
from flaxnets.bridge.convert import as_numpy, in_dtype, torch_only
from flaxnets.bridge.recording import recorded
from flaxnets.compile_options import (
    OF_BFLOAT16,
    OF_CONVOLUTIONS,
    OPTIMISED,
    UNOPTIMISED,
    Options,
)
from flaxnets.data.drawn import draw
from flaxnets.specs import Input
from flaxnets.training.objective import apply
from flaxnets.training.randomness import drawn
from torch_ref.arrays import channels_first, tensor, tensors
from torch_ref.random import replay

TORCH_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
LARGE = 2**14  # weights, or numbers of the inputs, beyond which convolutions run for long


class Result(NamedTuple):
    """What one run of a model gave, by name, in torch's layouts."""

    outputs: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]


class Trained(NamedTuple):
    """What passes in training mode left behind, by name, buffers in torch's layouts."""

    outputs: dict[str, np.ndarray]
    buffers: dict[str, np.ndarray]
    draws: list[tuple[int, ...]]


class Pair:
    """Two models that are said to be the same function.

    Args:
        flax_model: an `nnx.Module`, or a function from a seed to one.
        torch_model: a `torch.nn.Module`, or a function from a seed to one.
        inputs: what the models eat, in order: `flaxnets.specs.Input` descriptions, or arrays
            in Flax's layout (those of four and five axes are images, channels last).
        seed: of the weights and inputs.

    Raises:
        bridge.BridgeError: weights of one side without a counterpart on the other.

    >>> x = Input(name="x", shape=(2, 4), axes="bf")
    >>> pair = Pair(nnx.Linear(4, 3, rngs=nnx.Rngs(0)), torch.nn.Linear(4, 3), [x])
    >>> {name: weight.shape for name, weight in pair.weights.items()}
    {'weight': (3, 4), 'bias': (3,)}
    """

    def __init__(
        self,
        flax_model: nnx.Module | Callable[[int], nnx.Module],
        torch_model: torch.nn.Module | Callable[[int], torch.nn.Module],
        inputs: Sequence[Input | np.ndarray],
        seed: int = 0,
    ) -> None:
        self.repeatable = not isinstance(flax_model, nnx.Module) and not isinstance(
            torch_model, torch.nn.Module
        )
        self.create_flax = _factory(flax_model, nnx.Module)
        self.create_torch = _factory(torch_model, torch.nn.Module)
        self._flax, self._torch = self.create_flax(0), self.create_torch(0)
        self._given = inputs
        self.torch_only = frozenset(torch_only(self._flax))
        self._compiled: dict[str, Callable] = {}
        self._layouts: dict[str, dict[str, bool]] = {}
        self._draw(seed)
        self.flax_model("float32")  # weights without a counterpart are an error at once

    def _draw(self, seed: int) -> None:
        rng = np.random.Generator(np.random.Philox(seed))
        self.weights: dict[str, np.ndarray] = {}
        shared: dict[int, str] = {}  # the first name of every tensor
        for name, value in self._torch.state_dict(keep_vars=True).items():
            first = shared.setdefault(id(value), name)
            self.weights[name] = (
                _random_weight(rng, name, value.detach().numpy())
                if first == name
                else self.weights[first]
            )
        self.inputs, self.values = _draw_inputs(rng, self._given)
        self._cotangent_seed = int(rng.integers(2**31))

    def redrawn(self, seed: int) -> "Pair":
        """The same models with other random weights and inputs; nothing is compiled again."""
        other = copy.copy(self)
        other._draw(seed)
        return other

    def compiled(self, name: str, function: Callable, options: Options | None = None) -> Callable:
        """A function of the pair, jitted once under its name.

        Args:
            name: of the function.
            function: to be compiled where the name is new.
            options: of XLA's compiler on a CPU; by default what compiles soonest.
        """
        if name not in self._compiled:
            large = any(
                sum(array.size for array in arrays) > LARGE
                for arrays in (self.weights.values(), self.values)
            )
            kernels = any(weight.ndim > 2 for weight in self.weights.values())
            soonest = OF_CONVOLUTIONS if large and kernels else UNOPTIMISED
            on_cpu = jax.default_backend() == "cpu"
            known = compile_options.known(options or soonest) if on_cpu else None
            self._compiled[name] = jax.jit(function, compiler_options=known)
        return self._compiled[name]

    def rounded(self, dtype: str) -> "Pair":
        """The same models with weights and inputs that a dtype holds exactly."""
        other = copy.copy(self)
        other.weights = {name: _round(value, dtype) for name, value in self.weights.items()}
        other.values = tuple(_round(value, dtype) for value in self.values)
        return other

    def flax_model(self, dtype: str = "float64") -> nnx.Module:
        """The Flax model with the pair's weights in a dtype, in evaluation mode."""
        model = in_dtype(self._flax, dtype)
        bridge.load_state_dict(model, self.state(dtype))
        return nnx.view(
            model, deterministic=True, use_running_average=True, raise_if_not_found=False
        )

    def torch_model(self, dtype: str = "float64") -> torch.nn.Module:
        """The torch model with the pair's weights in a dtype, in evaluation mode."""
        model = copy.deepcopy(self._torch).to(TORCH_DTYPES[dtype])
        model.load_state_dict(tensors(self.state(dtype)))
        return model.eval()

    def state(self, dtype: str) -> dict[str, np.ndarray]:
        """The pair's weights under torch's names."""
        return {name: _cast(value, dtype) for name, value in self.weights.items()}

    def flax_inputs(self, dtype: str = "float64") -> tuple[jax.Array, ...]:
        """The inputs in Flax's layouts."""
        return tuple(_placed(_cast(value, dtype)) for value in self.values)

    def torch_inputs(self, dtype: str = "float64") -> tuple[torch.Tensor, ...]:
        """The inputs in torch's layouts."""
        return tuple(
            channels_first(tensor(_cast(value, dtype)), description.axes)
            for description, value in zip(self.inputs, self.values, strict=True)
        )

    def torch_result(self, dtype: str = "float64") -> Result:
        """Outputs of the torch model and gradients of a fixed random projection of them."""
        model, inputs = self.torch_model(dtype), self.torch_inputs(dtype)
        real = {
            f"input {d.name}": x.requires_grad_()
            for d, x in zip(self.inputs, inputs, strict=True)
            if x.is_floating_point()
        }
        wanted = {**dict(model.named_parameters()), **real}
        outputs = named(model(*inputs))
        loss = torch.zeros((), dtype=TORCH_DTYPES[dtype])
        for output, cotangent in zip(outputs.values(), self._cotangents(outputs), strict=True):
            loss = loss + (output * tensor(cotangent).to(output.dtype)).sum()
        found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
        gradients = {
            name: as_numpy(torch.zeros_like(value) if gradient is None else gradient)
            for (name, value), gradient in zip(wanted.items(), found, strict=True)
        }
        return Result({name: as_numpy(output) for name, output in outputs.items()}, gradients)

    def flax_result(self, reference: Result, dtype: str = "float64") -> Result:
        """The same of the Flax model; layouts are read off the reference."""
        model = self.flax_model(dtype)
        graph, params, rest = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
        # Gradients are taken of real inputs only; the others travel beside them.
        given = self.flax_inputs(dtype)
        real = [x if jnp.issubdtype(x.dtype, jnp.floating) else None for x in given]
        whole = [None if r is not None else x for r, x in zip(real, given, strict=True)]

        def run(params, real, rest, whole, cotangents):
            def projected(params, real):
                inputs = [w if r is None else r for r, w in zip(real, whole, strict=True)]
                outputs = named(nnx.merge(graph, params, rest, copy=True)(*inputs))
                return sum((outputs[name] * c).sum() for name, c in cotangents.items()), outputs

            return jax.grad(projected, argnums=(0, 1), has_aux=True)(params, real)

        moved = self._moved(reference)
        if moved is None:
            return Result(self.aligned(self.flax_outputs(), reference.outputs), {})
        cotangents = {
            name: jnp.asarray(np.moveaxis(x, 1, -1) if moved[name] else x, dtype)
            for name, x in zip(moved, self._cotangents(reference.outputs), strict=True)
        }
        options = {"float32": OPTIMISED, "bfloat16": OF_BFLOAT16}.get(dtype)
        both = self.compiled(f"both {dtype}", run, options)
        (of_params, of_real), outputs = both(params, real, rest, whole, cotangents)
        gradients = bridge.state_dict(model, of_params)
        for description, gradient in zip(self.inputs, of_real, strict=True):
            if gradient is not None:
                array = np.asarray(gradient)
                gradients[f"input {description.name}"] = (
                    np.moveaxis(array, -1, 1) if "c" in description.axes else array
                )
        arrays = {name: np.asarray(output) for name, output in outputs.items()}
        return Result(
            {name: np.moveaxis(x, -1, 1) if moved[name] else x for name, x in arrays.items()},
            gradients,
        )

    def flax_outputs(self) -> dict[str, np.ndarray]:
        """Outputs of the Flax model in its own layouts, compiled."""
        forward, state = self._forward()
        run = self.compiled("forward", forward)
        return {name: np.asarray(x) for name, x in run(state, self.flax_inputs()).items()}

    def _forward(self) -> tuple[Callable, Any]:
        """The Flax model as a function of its state and inputs, and the state."""
        graph, state = nnx.split(self.flax_model())

        def forward(state, inputs):
            return named(nnx.merge(graph, state, copy=True)(*inputs))

        return forward, state

    def _moved(self, reference: Result) -> dict[str, bool] | None:
        """Of every output, whether Flax has torch's second axis last; None if shapes differ."""
        if "moved" not in self._layouts:
            with jax.enable_x64(True):
                forward, state = self._forward()
                outputs = jax.eval_shape(forward, state, self.flax_inputs())
                if outputs.keys() != reference.outputs.keys():
                    return None
                if any(self._ambiguous(outputs[n], x) for n, x in reference.outputs.items()):
                    outputs = self.flax_outputs()
            moved = {n: self._channels_last(outputs[n], x) for n, x in reference.outputs.items()}
            for name, output in reference.outputs.items():
                shape = outputs[name].shape
                if output.shape != (_channels_second(shape) if moved[name] else shape):
                    return None
            self._layouts["moved"] = moved
        return self._layouts["moved"]

    def torch_trained(self, passes: int, draws: Sequence[tuple[int, ...]]) -> Trained:
        """Training-mode passes of the torch model, which draws what Flax drew in each."""
        model = self.torch_model().train()
        for index in range(passes):
            with replay(index, draws):
                outputs = named(model(*self.redrawn(index).torch_inputs()))
        state = {name: value.numpy() for name, value in model.state_dict().items()}
        buffers = state.keys() - dict(model.named_parameters(remove_duplicate=False)).keys()
        buffers -= self.torch_only
        return Trained(
            {name: output.detach().numpy() for name, output in outputs.items()},
            {name: state[name] for name in buffers},
            list(draws),
        )

    def flax_draws(self) -> list[tuple[int, ...]]:
        """The shapes of the random arrays that a training-mode pass of the Flax model draws."""
        model = nnx.view(
            self.flax_model(),
            deterministic=False,
            use_running_average=False,
            raise_if_not_found=False,
        )
        graph, state = nnx.split(model)

        def forward(state, inputs):
            return named(
                apply(nnx.merge(graph, state, copy=True), nnx.Rngs(jax.random.key(0)), *inputs)
            )

        return drawn(jax.make_jaxpr(forward)(state, self.flax_inputs()).jaxpr)

    def flax_trained(self, passes: int) -> Trained:
        """Training-mode passes of the Flax model: last outputs, buffers, draws of one pass."""
        model = self.flax_model()
        training = nnx.view(
            model, deterministic=False, use_running_average=False, raise_if_not_found=False
        )
        graph, state = nnx.split(training)

        def forward(state, inputs, seed):
            model = nnx.merge(graph, state, copy=True)
            outputs = named(apply(model, nnx.Rngs(jax.random.key(seed)), *inputs))
            return outputs, nnx.state(model)

        draws = self.flax_draws()
        jitted = self.compiled("forward in training", forward)
        for index in range(passes):
            outputs, state = jitted(state, self.redrawn(index).flax_inputs(), index)
        statistics = nnx.filter_state(state, nnx.BatchStat)
        return Trained(
            {name: np.asarray(output) for name, output in outputs.items()},
            bridge.state_dict(model, statistics),
            draws,
        )

    def aligned(
        self, arrays: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Flax's arrays with channels where torch has them."""
        return {
            name: np.moveaxis(array, -1, 1)
            if name in reference and self._channels_last(array, reference[name])
            else array
            for name, array in arrays.items()
        }

    def _channels_last(self, array: np.ndarray, reference: np.ndarray) -> bool:
        """Whether an array's last axis is torch's second.

        Feature maps, known by having as many axes as an input with channels, always are. Of
        other arrays the shape decides, and where both orders fit, the values.
        """
        if array.ndim < 3:
            return False
        if self._is_map(array):
            return True
        if not self._ambiguous(array, reference):
            return _channels_second(array.shape) == reference.shape
        gaps = [
            np.abs(np.nan_to_num(x - reference)).sum() for x in (np.moveaxis(array, -1, 1), array)
        ]
        return bool(gaps[0] < gaps[1])

    def _ambiguous(self, array: Any, reference: np.ndarray) -> bool:
        """Whether only the values of an array tell if its last axis is torch's second."""
        both = {array.shape, _channels_second(array.shape)}
        return array.ndim > 2 and not self._is_map(array) and both == {reference.shape}

    def _is_map(self, array: Any) -> bool:
        return any("c" in given.axes and len(given.axes) == array.ndim for given in self.inputs)

    def _cotangents(self, outputs: dict[str, Any]) -> list[np.ndarray]:
        rng = np.random.Generator(np.random.Philox(self._cotangent_seed))
        return [rng.standard_normal(tuple(output.shape), np.float32) for output in outputs.values()]

    def torch_intermediates(self) -> dict[str, np.ndarray]:
        """The output of every submodule of the torch model, float64, by name and call."""
        model = self.torch_model()
        found: dict[str, np.ndarray] = {}

        def record(name):
            def hook(module, inputs, output):
                output = self._padded(output, getattr(module, "batch_first", False))
                _record(found, name, output, lambda x: x.detach().numpy())

            return hook

        for name, module in model.named_modules():
            if name:
                module.register_forward_hook(record(name))
        model(*self.torch_inputs())
        return found

    def _padded(self, output: Any, batch_first: bool) -> Any:
        """An output whose packed sequences are padded to the length of the inputs."""
        if isinstance(output, PackedSequence):
            total = max(d.shape[d.axes.index("t")] for d in self.inputs if "t" in d.axes)
            return pad_packed_sequence(output, batch_first, total_length=total)[0]
        if isinstance(output, tuple):
            return tuple(self._padded(entry, batch_first) for entry in output)
        return output

    def flax_intermediates(self) -> dict[str, np.ndarray]:
        """The output of every submodule of the Flax model, float64, by torch name and call."""
        model = self.flax_model()
        found: dict[str, np.ndarray] = {}

        def record(name, module, args, kwargs, output):
            if name:
                _record(found, name, output, np.asarray)

        with recorded(model, record):
            model(*self.flax_inputs())
        return found


def _channels_second(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], shape[-1], *shape[1:-1]) if len(shape) > 1 else shape


def _shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def _factory(model: Any, kind: type) -> Callable[[int], Any]:
    return (lambda seed: model) if isinstance(model, kind) else model


def _placed(array: np.ndarray) -> jax.Array:
    """An array of JAX, without the program that jnp.array compiles for every shape."""
    return jax.device_put(np.array(array))


def _cast(value: Any, dtype: str) -> Any:
    floating = jnp.issubdtype(value.dtype, jnp.floating)
    return value.astype(jnp.dtype(dtype)) if floating else value


def _round(value: np.ndarray, dtype: str) -> np.ndarray:
    return _cast(_cast(value, dtype), str(value.dtype))


def _random_weight(rng: np.random.Generator, name: str, start: np.ndarray) -> np.ndarray:
    """Random numbers of a size that keeps signals alive, about a vector's initial value."""
    if start.dtype.kind != "f":
        return rng.integers(1, 9, start.shape).astype(start.dtype)
    noise = rng.standard_normal(start.shape, np.float32)
    if start.ndim > 1:  # torch's layout: the axes behind the first are summed over
        return noise / np.float32(np.prod(start.shape[1:]) ** 0.5)
    if name.endswith("running_var"):
        return np.float32(0.5) + np.abs(noise)
    return start.astype(np.float32) + np.float32(0.3) * noise


def _draw_inputs(
    rng: np.random.Generator, inputs: Sequence[Input | np.ndarray]
) -> tuple[tuple[Input, ...], tuple[np.ndarray, ...]]:
    described, values = [], []
    for index, given in enumerate(inputs):
        if isinstance(given, Input):
            described.append(given)
            values.append(draw(rng, given))
        else:
            array = np.asarray(given)
            axes = {4: "bhwc", 5: "bdhwc"}.get(array.ndim, "btf"[: array.ndim])
            described.append(Input(name=str(index), shape=array.shape, axes=axes))
            values.append(array.astype(np.float32) if array.dtype.kind == "f" else array)
    return tuple(described), tuple(values)


def named(output: Any, name: str = "output") -> dict[str, Any]:
    """The arrays of an output that may be nested in tuples, lists and mappings."""
    if isinstance(output, PackedSequence):  # before tuples, of which it is one
        return named(pad_packed_sequence(output, batch_first=True)[0], name)
    if isinstance(output, dict):
        entries = output.items()
    elif isinstance(output, list | tuple):
        entries = enumerate(output)  # type: ignore[assignment]
    else:
        return {} if output is None else {name: output}
    return {
        inner: array
        for key, value in entries
        for inner, array in named(value, f"{name}.{key}").items()
    }


def _record(found: dict, name: str, output: Any, convert: Callable) -> None:
    call = 1
    while any(key.split(" ")[0] == f"{name}#{call}" for key in found):
        call += 1
    for inner, array in named(output, f"{name}#{call}").items():
        found[inner] = convert(array)
