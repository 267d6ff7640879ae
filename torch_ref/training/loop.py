"""The training loop that a PyTorch user would write, and prediction in batches."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from torch_ref.arrays import channels_first, tensor
from torch_ref.training.objectives import Objective, together


class TrainingError(RuntimeError):
    """A run that cannot go on; the message is one line."""


class Phase(NamedTuple):
    """One loss and the parameters that it moves: those of a submodule, or all for ""."""

    objective: Objective
    optimizer: torch.optim.Optimizer
    part: str = ""


def parameters(model: nn.Module, part: str = "") -> list[nn.Parameter]:
    """The parameters that a phase of that part moves."""
    return list(model.get_submodule(part).parameters())


def fit(
    model: nn.Module,
    phases: Sequence[Phase],
    batches: Iterable[tuple[Any, np.ndarray]],
    steps: int,
    axes: str | tuple[str, ...],
    on_step: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
) -> None:
    """Take a number of steps, one batch each; the model is trained in place.

    Args:
        model: any torch module.
        phases: what each step minimises, in order.
        batches: at least `steps` pairs of inputs, in Flax's layout, and targets; inputs may be
            a tuple of several, as are then their axes.
        steps: how many to take.
        axes: of the inputs, see `flaxnets.specs.Input`.
        on_step: called after every step with its number, from 1, and its metrics.

    Raises:
        TrainingError: a loss that is not finite, or too few batches.

    >>> model = nn.Linear(3, 2)
    >>> from torch_ref.training.objectives import classification
    >>> batch = np.ones((4, 3), np.float32), np.zeros(4, np.int32)
    >>> phase = Phase(classification(), torch.optim.SGD(model.parameters(), lr=0.1))
    >>> fit(model, [phase], [batch] * 2, 2, "bf")
    """
    model.train()
    taken = 0
    for inputs, targets in islice(batches, steps):
        batch = batch_of(inputs, targets, axes)
        losses: list[torch.Tensor] = []
        metrics: dict[str, torch.Tensor] = {}
        for phase in phases:
            loss, figures = phase.objective(model, batch)
            own = [group for groups in phase.optimizer.param_groups for group in groups["params"]]
            phase.optimizer.zero_grad()
            loss.backward(inputs=own)
            phase.optimizer.step()
            losses.append(loss)
            metrics |= {f"{phase.part}_loss": loss} if phase.part else {}
            metrics |= figures
        taken += 1
        values = {"loss": sum(losses[1:], losses[0]), **metrics}
        if not torch.isfinite(values["loss"]):
            raise TrainingError(
                f"the loss is {values['loss'].item()} at step {taken}; use a smaller learning rate"
            )
        on_step(taken, {name: value.item() for name, value in values.items()})
    if taken < steps:
        raise TrainingError(f"the batches ended after step {taken} of {steps}; give more")


def batch_of(inputs: Any, targets: Any, axes: str | tuple[str, ...]) -> Any:
    """A batch as objectives take it: tensors, channels first.

    Args:
        inputs: in Flax's layout, one array or a tuple of several.
        targets: labels, numbers or None.
        axes: of the inputs, each.
    """
    return _inputs(inputs, axes), None if targets is None else _target(targets)


def _inputs(inputs: Any, axes: str | tuple[str, ...]) -> Any:
    if isinstance(inputs, tuple):
        return tuple(map(_inputs, inputs, together(axes)))
    return channels_first(tensor(np.asarray(inputs)), together(axes)[0])


def _target(targets: np.ndarray) -> torch.Tensor:
    target = tensor(targets)
    return target if target.is_floating_point() else target.long()


@torch.no_grad()
def predict(
    model: nn.Module,
    inputs: Any,
    axes: str | tuple[str, ...],
    part: str = "forward",
    batch_size: int = 500,
) -> np.ndarray:
    """Outputs for all inputs, both in Flax's layout, in evaluation mode, batch by batch.

    Args:
        model: any torch module; of several outputs the first is returned.
        inputs: in Flax's layout, one array or a tuple of several.
        axes: of these, each.
        part: the method or submodule to call.
        batch_size: examples a call.
    """
    was_training = model.training
    model.eval()
    whole = together(inputs)
    parts = []
    for start in range(0, len(whole[0]), batch_size):
        batch = tuple(x[start : start + batch_size] for x in whole)
        output = getattr(model, part)(*_inputs(batch, together(axes)))
        output = (output[0] if isinstance(output, tuple) else output).numpy()
        images = output.ndim > 3 or (output.ndim == 3 and "c" in together(axes)[0])
        parts.append(np.moveaxis(output, 1, -1) if images else output)
    model.train(was_training)
    return np.concatenate(parts)
