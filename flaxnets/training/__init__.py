"""Jitted training of NNX models: objectives, optimizers, the step and the loop around it."""

from flaxnets.training.loop import Trainer, fit, predict
from flaxnets.training.step import Phase, TrainStep

__all__ = ["Phase", "TrainStep", "Trainer", "fit", "predict"]
