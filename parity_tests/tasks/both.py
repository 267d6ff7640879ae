"""An objective against its twin: loss, metrics and gradient in float64."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from flaxnets.parity.compare import relative_error


def check_objective(
    ours: Callable,
    theirs: Callable,
    models: tuple[Callable, Callable],
    moved: np.ndarray,
    batch: Callable[[Any, Callable], Any],
) -> None:
    """Both give one loss, the same metrics and one gradient of an array.

    Args:
        ours: the objective.
        theirs: torch's.
        models: that they are given, of JAX and of torch: functions from the array to a model.
        moved: the array.
        batch: for the array and a function that makes others of NumPy's.
    """
    x = torch.tensor(moved, requires_grad=True)
    expected, told = theirs(models[1](x), batch(x, torch.tensor))
    expected.backward()
    with jax.enable_x64(True):
        (loss, metrics), grad = jax.value_and_grad(
            lambda x: ours(models[0](x), batch(x, jnp.asarray), None), has_aux=True
        )(jnp.asarray(moved))
    assert relative_error(expected.detach().numpy(), np.asarray(loss)) < 1e-13
    assert relative_error(x.grad.numpy(), np.asarray(grad)) < 1e-13
    assert metrics.keys() == told.keys()
    for name, value in metrics.items():
        assert abs(float(value) - told[name].item()) <= 1e-12 * abs(told[name].item())
