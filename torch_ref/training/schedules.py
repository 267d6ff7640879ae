"""torch's own schedulers, by the names that `flaxnets.training.schedules` uses."""

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
