"""Arrays between NumPy and torch: state_dicts, layouts and files that only torch can read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from flaxnets.edge.files import opened
from flaxnets.edge.message import printable, some
from torch_ref.checkpoint import SIZES, CheckpointError, Tensor, contents


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

    They have the memory of the storages in the file: what shares there, shares here.

    Raises:
        CheckpointError: a file that is broken, holds code, or holds no mapping of dense tensors.
        OSError: the file cannot be opened, or is none.
    """
    with opened(path) as file:
        try:
            content, load = contents(file)
            if isinstance(content, dict) and set(content) == {"state_dict"}:
                content = content["state_dict"]
            if not isinstance(content, dict):
                raise CheckpointError("it holds no state_dict; save model.state_dict()")
            _require_tensors(content)
            wanted = dict.fromkeys(view.storage for view in content.values())
            storages = {storage: load(storage) for storage in wanted}
        except CheckpointError as error:
            raise CheckpointError(f"{path} is not a safe torch checkpoint: {error}") from None
    return {name: _tensor(view, storages[view.storage]) for name, view in content.items()}


def _require_tensors(content: Mapping[Any, Any]) -> None:
    strange = [f"{printable(key, 60)!r}" for key in content if not isinstance(key, str)]
    if strange:
        raise CheckpointError(f"names that are no text: {some(strange)}")
    others = [
        f"{printable(name, 100)} is {getattr(value, 'kind', f'of type {type(value).__name__}')}"
        for name, value in content.items()
        if not isinstance(value, Tensor)
    ]
    if others:
        raise CheckpointError(f"{some(others)}; save a state_dict of dense tensors")


def _tensor(view: Tensor, storage: bytearray) -> torch.Tensor:
    dtype = getattr(torch, view.dtype)
    count = len(storage) // SIZES[view.dtype]
    flat = (
        torch.frombuffer(storage, dtype=dtype, count=count)
        if count
        else torch.empty(0, dtype=dtype)
    )
    tensor = flat.as_strided(view.shape, view.strides, view.offset)
    tensor = tensor.conj() if view.conjugate else tensor
    return torch._neg_view(tensor) if view.negative else tensor
