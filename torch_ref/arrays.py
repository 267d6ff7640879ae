"""Arrays between NumPy and torch: state_dicts, layouts and files that only torch can read."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange


class CheckpointError(ValueError):
    """A file that torch cannot load safely; the message is one line."""


def tensors(state: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """NumPy arrays as tensors of their own memory, bfloat16 among them.

    >>> tensors({"w": np.ones(2, np.float32)})["w"]
    tensor([1., 1.])
    """
    return {name: tensor(array) for name, array in state.items()}


def tensor(array: np.ndarray) -> torch.Tensor:
    """One NumPy array as a tensor of its own memory; see `tensors`."""
    if array.dtype.name == "bfloat16":  # which torch does not take from NumPy
        return torch.tensor(array.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(array)


def optimizer_tensors(state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's state of NumPy arrays as what `torch.optim.Optimizer.load_state_dict` takes.

    >>> optimizer_tensors({"state": {0: {"step": np.ones((), np.float32)}}, "param_groups": []})
    {'state': {0: {'step': tensor(1.)}}, 'param_groups': []}
    """
    slots = {index: tensors(own) for index, own in state["state"].items()}
    return {"state": slots, "param_groups": state["param_groups"]}


def channels_first(x: torch.Tensor, axes: str) -> torch.Tensor:
    """An input in Flax's axes (see `flaxnets.specs.Input`) in torch's.

    >>> channels_first(torch.zeros(2, 8, 9, 3), "bhwc").shape
    torch.Size([2, 3, 8, 9])
    """
    if "c" not in axes:
        return x
    spatial = " ".join(axes[1:].replace("c", ""))
    moved = rearrange(x, f"{' '.join(axes)} -> b c {spatial}")
    # With one channel `contiguous` would keep strides for which torch convolves channels last.
    return moved.clone(memory_format=torch.contiguous_format)


def read(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a `.pt` file, read without running any code that it may hold.

    Raises:
        CheckpointError: a file that is broken, holds code, or holds no mapping of tensors.
        OSError: the file cannot be opened.
    """
    broken = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError)
    content: Any
    with open(path, "rb") as file:  # here an OSError is the file's, below torch's word for broken
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except broken as error:
            reason = str(error).partition("\n")[0]
            raise CheckpointError(f"{path} is not a safe torch checkpoint: {reason}") from None
    if isinstance(content, Mapping) and set(content) == {"state_dict"}:
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(map(torch.is_tensor, content.values())):
        raise CheckpointError(f"{path} holds no state_dict; save model.state_dict()")
    return dict(content)
