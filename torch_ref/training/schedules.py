"""torch's own schedulers, by the names that `flaxnets.training.schedules` uses."""

import warnings
from typing import Any

from torch.optim import lr_scheduler

BY_NAME: dict[str, Any] = {
    "step_lr": lr_scheduler.StepLR,
    "multi_step_lr": lr_scheduler.MultiStepLR,
    "exponential_lr": lr_scheduler.ExponentialLR,
    "cosine_annealing_lr": lr_scheduler.CosineAnnealingLR,
    "linear_lr": lr_scheduler.LinearLR,
    "sequential_lr": lr_scheduler.SequentialLR,
    "one_cycle_lr": lr_scheduler.OneCycleLR,
    "reduce_lr_on_plateau": lr_scheduler.ReduceLROnPlateau,
}


MOST = 10_000_000  # steps that are gone through again, which takes a minute or two


def wind(scheduler: Any, count: int) -> None:
    """Advance a new scheduler to where it is after so many steps, with the bits that it has there.

    Its rates are made of those before them, so each is computed.

    Raises:
        ValueError: a count of more than `MOST`, or of none.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    >>> wind(scheduler, 3)
    >>> scheduler.last_epoch, optimizer.param_groups[0]["lr"]
    (3, 0.125)
    """
    if type(count) is not int or not 0 <= count <= MOST:
        raise ValueError(f"{count} is no number of steps to go through again, from 0 to {MOST:,}")
    with warnings.catch_warnings():  # that the optimizer has not moved, which is meant
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(count):
            scheduler.step()
