"""The loop around the jitted step, and prediction in batches."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import jax
import numpy as np
from flax import nnx

from flaxnets.training.objectives import together
from flaxnets.training.step import TrainState, TrainStep


class TrainingError(RuntimeError):
    """A run that cannot go on; the message is one line."""


def fit(
    step: TrainStep,
    batches: Iterable[Any],
    steps: int,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
) -> TrainState:
    """Take a number of steps, one batch each.

    Args:
        step: the training step; its `state` is where the run begins.
        batches: at least `steps` batches as the step's objective wants them.
        steps: how many to take.
        on_step: called after every step with its number, from 1, and its metrics.

    Raises:
        TrainingError: a loss that is not finite, or too few batches.

    >>> from flaxnets import create
    >>> from flaxnets.training import Phase, objectives, optimizers
    >>> model = create("feedforward", variant="logits")
    >>> step = TrainStep(model, Phase(objectives.classification(), optimizers.adam()))
    >>> batch = np.ones((4, 100), np.float32), np.zeros(4, np.int32)
    >>> int(fit(step, [batch] * 3, 3).step)
    3
    """
    # Donation uses up its argument; the step's own state stays whole for another run.
    state = jax.tree.map(jax.numpy.copy, step.state)
    waiting: tuple[int, dict[str, jax.Array]] | None = None
    taken = 0
    for batch in islice(batches, steps):
        state, metrics = step(state, batch)
        taken += 1
        if waiting:  # read one step late, while the device works on the next
            _report(*waiting, on_step)
        waiting = (taken, metrics)
    if waiting:
        _report(*waiting, on_step)
    if taken < steps:
        raise TrainingError(f"the batches ended after step {taken} of {steps}; give more")
    return state


def _report(number: int, metrics: dict[str, jax.Array], on_step: Callable) -> None:
    values = {name: float(value) for name, value in metrics.items()}
    if not np.isfinite(values["loss"]):
        raise TrainingError(
            f"the loss is {values['loss']} at step {number}; use a smaller learning rate"
        )
    on_step(number, values)


def predict(
    model: nnx.Module, inputs: Any, part: str = "__call__", batch_size: int = 500
) -> np.ndarray:
    """Outputs for all inputs, in evaluation mode, batch by batch.

    Args:
        model: any NNX model; of several outputs the first is returned.
        inputs: as the model eats them, one array or a tuple of several.
        part: the method or submodule to call.
        batch_size: examples a call.

    >>> from flaxnets import create
    >>> predict(create("mlp"), np.zeros((3, 784), np.float32)).shape
    (3, 10)
    """
    graph, state = nnx.split(
        nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)
    )

    @jax.jit
    def forward(state, given):
        output = getattr(nnx.merge(graph, state, copy=True), part)(*given)
        return output[0] if isinstance(output, tuple) else output

    whole = together(inputs)
    starts = range(0, len(whole[0]), batch_size)
    return np.concatenate([forward(state, [x[i : i + batch_size] for x in whole]) for i in starts])
