"""Two models whose names, or numbers of layers, are not the same, matched as far as they go."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from einops import rearrange
from flax import nnx

from flaxnets.bridge.convert import Entry, entries, modules
from flaxnets.parity.pair import Pair

Shape = tuple[int, ...]


class Match(NamedTuple):
    """Which weights and modules belong together.

    Attributes:
        weights: Flax's name of a weight to torch's.
        modules: Flax's name of a module to torch's.
        transposed: weights of `weights` whose shapes are each other's reverse.
        missing: torch's weights without a counterpart, with their shapes.
        extra: Flax's.
    """

    weights: dict[str, str]
    modules: dict[str, str]
    transposed: list[str]
    missing: dict[str, Shape]
    extra: dict[str, Shape]


def match(flax_model: nnx.Module, torch_model: torch.nn.Module) -> Match:
    """Match by name first, then by order and shape.

    >>> flax, twin = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0))), torch.nn.Linear(2, 3)
    >>> match(flax, twin).weights
    {'0.weight': 'weight', '0.bias': 'bias'}
    """
    ours = {entry.name: torch_shape(entry) for entry in entries(flax_model)}
    theirs = {
        name: tuple(value.shape)
        for name, value in torch_model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    ours = {name: shape for name, shape in ours.items() if not name.endswith("_tracked")}
    found = {name: name for name, shape in ours.items() if theirs.get(name) == shape}
    if len(found) < max(len(ours), len(theirs)):  # numbered layers may all have moved by one
        found |= _in_order(ours, theirs, found, lambda name, shape: (_last(name), shape))
    transposed = [
        name
        for name, shape in ours.items()
        if name not in found and theirs.get(name) == shape[::-1]
    ]
    found |= {name: name for name in transposed}
    matched = set(found.values())
    return Match(
        found,
        _modules(flax_model, torch_model, found),
        transposed,
        {name: shape for name, shape in theirs.items() if name not in matched},
        {name: shape for name, shape in ours.items() if name not in found},
    )


def torch_shape(entry: Entry) -> Shape:
    """The shape of a weight in torch's layout."""
    pattern = entry.leaf.to_torch()
    array = np.empty(entry.variable[...].shape, np.bool_)
    return (rearrange(array, pattern) if pattern else array).shape


def _in_order(
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    known: Mapping[str, str],
    sign: Callable[[str, Any], Any],
) -> dict[str, str]:
    """The longest common sequence of what is not yet matched."""
    left = [name for name in ours if name not in known]
    right = [name for name in theirs if name not in set(known.values())]
    matcher = difflib.SequenceMatcher(
        None,
        [sign(name, ours[name]) for name in left],
        [sign(name, theirs[name]) for name in right],
        autojunk=False,
    )
    return {
        left[block.a + i]: right[block.b + i]
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
    }


def _modules(
    flax_model: nnx.Module, torch_model: torch.nn.Module, weights: Mapping[str, str]
) -> dict[str, str]:
    """Modules by their weights, those without any by their kind and order between these."""
    by_weight = {_parent(ours): _parent(theirs) for ours, theirs in weights.items()}
    ours = {name: module for _, name, module in modules(flax_model)}
    theirs = dict(torch_model.named_modules())
    known = by_weight | {"": ""}

    def sign(name, module):
        return kind(module)

    taken = set(known.values())
    for name, module in ours.items():
        alike = name in theirs and kind(theirs[name]) == kind(module)
        if name not in known and name not in taken and alike:
            known[name] = name
    return known | _in_order(ours, theirs, known, sign)


def kind(module: Any) -> str:
    """A layer's type without its dimensions: Conv2d and nnx.Conv are alike."""
    name = re.sub(r"\d+d$", "", type(module).__name__.lower())
    return {"embed": "embedding", "optimizedlstmcell": "lstmcell"}.get(name, name)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


class PartialPair(Pair):
    """A pair of which only the weights that match are the same."""

    def __init__(
        self,
        flax_model: nnx.Module,
        torch_model: torch.nn.Module,
        inputs: Sequence[Any],
        seed: int = 0,
    ) -> None:
        self.match = match(flax_model, torch_model)
        super().__init__(flax_model, torch_model, inputs, seed)

    def flax_model(self, dtype: str = "float64") -> nnx.Module:
        """The Flax model with the matched weights, in evaluation mode."""
        graph, state = nnx.split(self._flax)
        copied = jax.tree.map(
            lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, state
        )
        model = nnx.merge(graph, copied)
        values = self.state(dtype)
        for entry in entries(model):
            if entry.name not in self.match.weights:
                continue
            value = values[self.match.weights[entry.name]]
            if entry.name in self.match.transposed:
                value = value.T
            pattern = entry.leaf.to_flax()
            value = rearrange(value, pattern) if pattern else value
            entry.variable.set_value(jnp.asarray(value))
        return nnx.view(
            model, deterministic=True, use_running_average=True, raise_if_not_found=False
        )
