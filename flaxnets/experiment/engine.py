"""The two backends behind one interface: the same experiment in either.

From one spec and recipe both begin with the same weights, meet the same examples in the same
order and draw the same random numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
import numpy as np
from flax import nnx

import flaxnets
from flaxnets import bridge, specs
from flaxnets.bridge.convert import in_dtype
from flaxnets.data import Dataset, Lazy
from flaxnets.experiment.recipe import Recipe
from flaxnets.swap.handover import Handover, HandoverError
from flaxnets.tasks import Call
from flaxnets.training.loop import Heard


@dataclass(frozen=True)
class Trained:
    """A trained network of either backend: itself, its weights by torch's names, its calls."""

    model: Any
    weights: dict[str, np.ndarray]
    call: Call


class Engine(Protocol):
    """What a run asks of a backend."""

    @property
    def taken(self) -> int:
        """How many steps were taken."""

    @property
    def kernels(self) -> set[str]:
        """What attention was computed with, where that is known."""

    def advance(self, until: int, on_step: Heard, stopping: Callable[[], bool]) -> None:
        """Take steps until there are so many, or until it is time to stop."""

    def like(self) -> Any:
        """Arrays of the form that `state` gives."""

    def state(self) -> tuple[Any, dict[str, Any]]:
        """All that the next step depends on: arrays, and what JSON holds."""

    def load_state(self, arrays: Any, rest: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""

    def handover(self) -> Handover:
        """The same in a form of neither backend."""

    def take_over(self, found: Handover) -> None:
        """Go on from what `handover` of either backend gave, of the same spec and recipe."""

    def trained(self) -> Trained:
        """The network as it is now."""

    def facts(self) -> dict[str, Any]:
        """What of the engine has to be the same when a run is resumed."""


def begin(spec: specs.Spec, recipe: Recipe) -> nnx.Module:
    """The network that a run begins with, in Flax; traced, it allocates nothing.

    Raises:
        bridge.BridgeError: weights to begin with that are not the network's.
        OSError: a file of weights that cannot be read.
    """
    if recipe.precision != "float64":
        model = flaxnets.build(spec, "flax", recipe.seed)
        if recipe.init is not None:
            bridge.load(model, recipe.init)
        return model
    with jax.enable_x64(False):  # the weights that a run in float32 begins with
        model = flaxnets.build(spec, "flax", recipe.seed)
    model = in_dtype(model, "float64")
    if recipe.init is not None:
        state = {name: in_float64(x) for name, x in bridge.read(recipe.init).items()}
        bridge.load_state_dict(model, state)
    return model


def in_float64(given: Any) -> Any:
    """Real arrays, in a tree or read one by one, in float64."""

    def cast(x: Any) -> Any:
        if x.dtype.kind != "f":
            return x
        return x.map(cast) if isinstance(x, Lazy) else x.astype(np.float64)

    return jax.tree.map(cast, given)


def wide(recipe: Recipe, chosen: Dataset) -> Dataset:
    """The training data in the precision of a run."""
    if recipe.precision != "float64":
        return chosen
    inputs, targets = in_float64((chosen.train_inputs, chosen.train_targets))
    return replace(chosen, train_inputs=inputs, train_targets=targets)


def averages(found: Handover) -> Mapping[str, np.ndarray]:
    """The average of the weights in what is handed over.

    Raises:
        HandoverError: there is none.
    """
    if found.average is None:
        raise HandoverError("an average of the weights is missing")
    return found.average
