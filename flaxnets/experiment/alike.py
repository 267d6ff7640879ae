"""Both twins trained alike: same first weights, batches and random numbers."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from flaxnets.data import Dataset, fit
from flaxnets.experiment.engine import Engine
from flaxnets.experiment.flax_engine import FlaxEngine
from flaxnets.experiment.recipe import Recipe
from flaxnets.experiment.torch_engine import TorchEngine
from flaxnets.specs import Spec


class Learned(NamedTuple):
    """One twin after its training.

    Attributes:
        losses: one a step.
        model: the network, an `nnx.Module` or a `torch.nn.Module`, in evaluation mode.
        weights: by torch's names, in torch's layouts.
    """

    losses: list[float]
    model: Any
    weights: Mapping[str, np.ndarray]


class Alike(NamedTuple):
    """Both twins after the same training."""

    flax: Learned
    torch: Learned


def train_alike(spec: Spec, chosen: Dataset, recipe: Recipe | None = None) -> Alike:
    """Train both twins of a network, in the loop of each framework, and keep no file.

    Both begin with the weights that Flax draws for the recipe's seed, meet the same examples in
    the same order, and draw the same random numbers. Within rounding they give the same losses;
    with `precision="float64"` those agree to about 1e-12.

    Args:
        spec: of the network.
        chosen: a data set, which is made to fit the network.
        recipe: of the training, as for `flaxnets train`; the network's own if none is given.

    Raises:
        DataError: data that does not fit the network.
        TrainingError: an option that the network has no use for; a loss that is not finite.

    >>> from flaxnets import data, specs
    >>> recipe = Recipe(steps=3, precision="float64")
    >>> both = train_alike(specs.make("linear_network"), data.load("binary"), recipe)
    >>> [abs(a - b) < 1e-12 for a, b in zip(both.flax.losses, both.torch.losses, strict=True)]
    [True, True, True]
    """
    chosen = fit(chosen, spec.examples(1), spec.targets(1))
    settled = (recipe or Recipe()).settled(spec, len(chosen.train_targets))
    settled = replace(settled, steps_per_dispatch=settled.steps_per_dispatch or 1)
    with jax.enable_x64(True) if settled.precision == "float64" else contextlib.nullcontext():
        flax = _learned(FlaxEngine(spec, settled, chosen), settled)
        torch = _learned(TorchEngine(spec, settled, chosen), settled)
    return Alike(flax, torch)


def _learned(engine: Engine, recipe: Recipe) -> Learned:
    losses: list[float] = []
    assert recipe.steps is not None  # as settled
    engine.advance(recipe.steps, lambda _, told: losses.append(told["loss"]), lambda: False)
    trained = engine.trained()
    model = trained.model.eval() if isinstance(engine, TorchEngine) else trained.model
    return Learned(losses, model, trained.weights)
