"""Numbers: of an example, or what comes next in a series."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flaxnets import layers
from flaxnets.data import Dataset
from flaxnets.specs import Spec
from flaxnets.tasks import Call, Evaluation, Figure, axes
from flaxnets.training.objective import Objective, apply, together

FIGURES: Mapping[str, Figure] = {"mse": Figure("min"), "mae": Figure("min")}


def objective() -> Objective:
    """Mean square error of a batch (inputs, targets), with the mean absolute error beside it.

    >>> import jax.numpy as jnp
    >>> loss, metrics = objective()(lambda x: x, (jnp.zeros((1, 2)), jnp.full((1, 2), 2.0)), None)
    >>> float(loss), float(metrics["mae"])
    (4.0, 2.0)
    """

    def objective(model, batch, rngs):
        inputs, targets = batch
        outputs = apply(model, rngs, *together(inputs))
        loss = layers.mse_loss(outputs, targets)
        return loss, {"mae": layers.l1_loss(outputs, targets)}

    return objective


def objectives(spec: Spec) -> dict[str, Objective]:
    """The loss of a network; see `Task.objectives`."""
    return {"": objective()}


def evaluate(spec: Spec, call: Call, chosen: Dataset) -> Evaluation:
    """Errors beside those of the mean, or of the last value of a series; see `Task.evaluate`."""
    outputs = call(chosen.test_inputs, axes(spec), None)
    truth = chosen.test_targets
    first = together(chosen.test_inputs)[0]
    if first.ndim == 3:  # windows of a series: what comes next is what was last
        name, trivial = "last_value", first[:, -1, -1].reshape(-1, *[1] * (truth.ndim - 1))
        if truth.ndim == 3 and truth.shape[1] == first.shape[1]:
            trivial = first[:, :, -1:]
    else:
        name, trivial = "mean", chosen.train_targets.mean(0)
    figures = {
        "test_mse": float(np.mean((outputs - truth) ** 2)),
        f"test_mse_of_the_{name}": float(np.mean((trivial - truth) ** 2)),
        "test_mae": float(np.mean(np.abs(outputs - truth))),
    }
    return Evaluation(figures=figures, outputs=outputs)


def pictures(spec: Spec, inputs: Any, targets: np.ndarray, found: Evaluation) -> dict[str, Any]:
    """The forecast of a series; see `Task.pictures`."""
    if spec.examples(1)[0].axes != "btf":
        return {}
    from flaxnets.page.pictures import forecast

    return {"forecast": forecast(targets, found.outputs)}
