"""The training loop that a PyTorch user would write, and prediction in batches."""

from collections.abc import Callable, Iterable
from itertools import islice

import numpy as np
import torch
from torch import nn

from torch_ref.arrays import channels_first, tensor
from torch_ref.training.objectives import Objective


class TrainingError(RuntimeError):
    """A run that cannot go on; the message is one line."""


def fit(
    model: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    steps: int,
    axes: str,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
) -> None:
    """Take a number of steps, one batch each; the model is trained in place.

    Args:
        model: any torch module.
        objective: the loss, see `torch_ref.training.objectives`.
        optimizer: over the model's parameters.
        batches: at least `steps` pairs of inputs, in Flax's layout, and integer labels.
        steps: how many to take.
        axes: of the inputs, see `flaxnets.specs.Input`.
        on_step: called after every step with its number, from 1, and its metrics.

    Raises:
        TrainingError: a loss that is not finite, or too few batches.

    >>> model = nn.Linear(3, 2)
    >>> from torch_ref.training.objectives import classification
    >>> batch = np.ones((4, 3), np.float32), np.zeros(4, np.int32)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> fit(model, classification(), optimizer, [batch] * 2, 2, "bf")
    """
    model.train()
    taken = 0
    for inputs, labels in islice(batches, steps):
        x = channels_first(tensor(inputs), axes)
        loss, metrics = objective(model, (x, tensor(labels).long()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        taken += 1
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss.item()} at step {taken}; use a smaller learning rate"
            )
        metrics = {"loss": loss, **metrics}
        on_step(taken, {name: value.item() for name, value in metrics.items()})
    if taken < steps:
        raise TrainingError(f"the batches ended after step {taken} of {steps}; give more")


@torch.no_grad()
def predict(model: nn.Module, inputs: np.ndarray, axes: str, batch_size: int = 500) -> np.ndarray:
    """The model's outputs for all inputs (Flax's layout), in evaluation mode, batch by batch."""
    was_training = model.training
    model.eval()
    parts = [
        model(channels_first(tensor(inputs[i : i + batch_size]), axes)).numpy()
        for i in range(0, len(inputs), batch_size)
    ]
    model.train(was_training)
    return np.concatenate(parts)
