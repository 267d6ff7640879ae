"""Every call of a submodule on both sides: what it was given and what it gave."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from flax import nnx
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from flaxnets.bridge.recording import recorded
from flaxnets.parity.compare import relative_error
from flaxnets.parity.pair import Pair, named
from flaxnets.training.objective import apply
from torch_ref.random import replay

Arrays = dict[str, np.ndarray]


class Fault(NamedTuple):
    """Where two models part, and the likely reason; either may be unknown, "".

    Attributes:
        place: a submodule, "input of" one, a parameter or buffer, or an output.
        cause: in words.
    """

    place: str = ""
    cause: str = ""


class Call(NamedTuple):
    """One call of a module; arrays in the layouts of its own framework.

    Attributes:
        name: of the module in torch, "" for the model itself.
        module: that was called.
        args: by position, copied before the call.
        kwargs: by name.
        outputs: by name.
    """

    name: str
    module: Any
    args: tuple
    kwargs: dict[str, Any]
    outputs: Arrays


class Run(NamedTuple):
    """The calls of a forward pass in the order in which they ended.

    Attributes:
        calls: by name and number of the call, as in `conv#1`.
        error: of a model that raised, in one line; "" of one that came to its end.
        inside: the module that it raised in, where that is known.
    """

    calls: dict[str, Call]
    error: str = ""
    inside: str = ""


def torch_run(pair: Pair, training: bool = False) -> Run:
    """The calls of the torch model, which in training draws what the Flax model draws."""
    model = pair.torch_model().train(training)
    calls: dict[str, Call] = {}
    entered: list[tuple] = []
    names = {id(module): name for name, module in model.named_modules()}

    def before(module, args, kwargs):
        entered.append((names[id(module)], _copied(args), _copied(kwargs)))

    def after(module, args, kwargs, output):
        name, args, kwargs = entered.pop()
        arrays = {key: x.detach().numpy().copy() for key, x in named(output).items()}
        calls[_key(calls, name)] = Call(name, module, args, kwargs, arrays)

    hooks = []
    for module in model.modules():
        hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
        hooks.append(module.register_forward_hook(after, with_kwargs=True))
    randomness = replay(0, pair.flax_draws()) if training else contextlib.nullcontext()
    inputs = (pair.redrawn(0) if training else pair).torch_inputs()
    try:
        with randomness:
            model(*inputs)
    except Exception as error:  # whatever a model under test may raise
        return Run(calls, one_line(error), entered[-1][0] if entered else "")
    finally:
        for hook in hooks:
            hook.remove()
    return Run(calls)


def flax_run(pair: Pair, training: bool = False, rename: Callable[[str], str] = str) -> Run:
    """The calls of the Flax model, under torch's names.

    Args:
        pair: of models.
        training: whether it is called in training mode.
        rename: Flax's name of a module to torch's.
    """
    model: Any = pair.flax_model()
    if training:
        model = nnx.view(
            model, deterministic=False, use_running_average=False, raise_if_not_found=False
        )
    calls: dict[str, Call] = {}

    def record(name, module, args, kwargs, output):
        arrays = {key: np.asarray(x) for key, x in named(output).items()}
        name = rename(name)
        calls[_key(calls, name)] = Call(name, module, args, kwargs, arrays)

    inputs = (pair.redrawn(0) if training else pair).flax_inputs()
    try:
        with recorded(model, record):
            if training:
                apply(model, nnx.Rngs(jax.random.key(0)), *inputs)
            else:
                model(*inputs)
    except Exception as error:  # whatever a model under test may raise
        return Run(calls, one_line(error))
    return Run(calls)


def one_line(error: Exception) -> str:
    """An error's type and the first line of its message."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _key(calls: dict[str, Call], name: str) -> str:
    number = 1 + sum(call.name == name for call in calls.values())
    return f"{name}#{number}"


def _copied(value: Any) -> Any:
    """Arguments as they are before a call that may write into them."""
    if isinstance(value, PackedSequence):
        return PackedSequence(value.data.detach().clone(), *value[1:])
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_copied, value))
    return value


def gap(pair: Pair, truth: np.ndarray, other: np.ndarray) -> float:
    """The relative error of an array of the Flax side; infinite if its shape is another."""
    other = align(pair, truth, other)
    return relative_error(truth, other) if truth.shape == other.shape else np.inf


def align(pair: Pair, truth: np.ndarray, other: np.ndarray) -> np.ndarray:
    """An array of the Flax side with channels where torch has them."""
    return pair.aligned({"x": other}, {"x": truth})["x"]


def inputs(truth: Call, other: Call) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What both sides' calls were given by position, array by array.

    Of a packed batch, the padding on the Flax side is left out.
    """
    theirs: list[tuple] = []
    for arg in truth.args:
        if isinstance(arg, PackedSequence):
            theirs.append(pad_packed_sequence(arg, batch_first=True))
        else:
            theirs += [(array, None) for array in named(arg).values() if torch.is_tensor(array)]
    ours = [
        np.asarray(array) for arg in other.args for array in named(arg).values() if _is_array(array)
    ]
    for (given, lengths), array in zip(theirs, ours, strict=False):
        if lengths is not None:
            array = array[:, : given.shape[1]]
            present = np.arange(array.shape[1]) < lengths.numpy()[:, None]
            array = array * present.reshape(present.shape + (1,) * (array.ndim - 2))
        yield given.detach().numpy(), array


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | jax.Array)
