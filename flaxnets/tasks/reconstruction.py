"""The input itself, through a narrow place or out of noise."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from flaxnets import layers
from flaxnets.data import Dataset
from flaxnets.specs import Spec
from flaxnets.tasks import Call, Evaluation, Figure, axes
from flaxnets.training.objective import Objective, apply

FIGURES: Mapping[str, Figure] = {"mse": Figure("min")}


def objective(noise: float = 0.0) -> Objective:
    """Mean square error between the inputs of a batch (inputs, anything) and the outputs.

    Args:
        noise: standard deviation of normal noise that is added to what the network sees, so
            that it learns to take noise away (Vincent et al. 2008).

    >>> import jax.numpy as jnp
    >>> loss, _ = objective()(lambda x: x + 1, (jnp.zeros((1, 2)), None), None)
    >>> float(loss)
    1.0
    """

    def objective(model, batch, rngs):
        inputs, _ = batch
        seen = inputs
        if noise:
            seen = inputs + noise * jax.random.normal(rngs(), inputs.shape, inputs.dtype)
        return layers.mse_loss(apply(model, rngs, seen), inputs), {}

    return objective


def objectives(spec: Spec, noise: float = 0.0) -> dict[str, Objective]:
    """The loss of a network; see `Task.objectives`."""
    return {"": objective(noise)}


def evaluate(spec: Spec, call: Call, chosen: Dataset) -> Evaluation:
    """The error beside that of the mean of all examples; see `Task.evaluate`."""
    outputs, inputs = call(chosen.test_inputs, axes(spec), None), np.asarray(chosen.test_inputs)
    figures = {
        "test_mse": float(np.mean((outputs - inputs) ** 2)),
        "test_mse_of_the_mean": float(np.mean((inputs.mean(0) - inputs) ** 2)),
    }
    return Evaluation(figures=figures, outputs=outputs)


def pictures(spec: Spec, inputs: Any, targets: np.ndarray, found: Evaluation) -> dict[str, Any]:
    """Images beside what became of them; see `Task.pictures`."""
    if inputs.ndim != 4:
        return {}
    from flaxnets.page.pictures import reconstructions

    return {"reconstructions": reconstructions(inputs, found.outputs)}
