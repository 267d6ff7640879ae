"""The loop around the jitted step, and prediction in batches."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from flax import nnx

from flaxnets.training.dispatch import SINGLE, Dispatch
from flaxnets.training.objective import together
from flaxnets.training.step import TrainState, TrainStep, copied, stack


class TrainingError(RuntimeError):
    """A run that cannot go on; the message is one line."""


Heard = Callable[[int, dict[str, float]], None]


class Trainer:
    """Takes a step again and again, several in one dispatch where that was chosen.

    Which steps share a dispatch follows from their numbers alone, so that a run that is
    interrupted and resumed computes the same bits as one that is not.

    Args:
        step: the training step.
        batch: gives the batch of a step by its number, from 0; called in order.
        dispatch: how many steps go to the device at once.
        state: to go on from, which is donated; the step's own if None.

    Attributes:
        state: the newest.
        taken: how many steps led to it.

    >>> from flaxnets import create
    >>> from flaxnets.tasks import classification
    >>> from flaxnets.training import Phase, optimizers
    >>> model = create("feedforward", variant="logits")
    >>> step = TrainStep(model, Phase(classification.objective(), optimizers.adam()))
    >>> batch = np.ones((4, 100), np.float32), np.zeros(4, np.int32)
    >>> trainer = Trainer(step, lambda number: batch, Dispatch(2, "scan"))
    >>> trainer.advance(5)
    >>> trainer.taken, int(trainer.state.step)
    (5, 5)
    """

    def __init__(
        self,
        step: TrainStep,
        batch: Callable[[int], Any],
        dispatch: Dispatch = SINGLE,
        state: TrainState | None = None,
    ) -> None:
        self._step, self._batch, self._dispatch = step, batch, dispatch
        self._several = dispatch.of(step)
        self.state = step.state if state is None else state
        self.taken = int(self.state.step)

    def advance(
        self,
        until: int,
        on_step: Heard = lambda step, metrics: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take steps until there are so many, or until it is time to stop.

        Args:
            until: how many steps there are to be.
            on_step: called after every step with its number, from 1, and its metrics.
            stopping: asked before every dispatch whether to stop there.

        Raises:
            TrainingError: a loss that is not finite; the step is named, and the reason if the
                objective has one, such as a label out of range.
        """
        waiting: tuple[int, list[Any], dict[str, jax.Array]] | None = None
        try:
            while self.taken < until and not stopping():
                whole = self._dispatch.steps
                fits = self.taken % whole == 0 and self.taken + whole <= until
                batches = [self._batch(self.taken + i) for i in range(whole if fits else 1)]
                call = self._several if fits else self._step
                several = len(batches) > 1
                given = self._step.put(stack(batches) if several else batches[0], several)
                self.state, metrics = call(self.state, given)
                before, waiting = waiting, None
                if before:  # read one dispatch late, while the device works on the next
                    self._report(*before, on_step)
                waiting = (self.taken, batches, metrics)
                self.taken += len(batches)
        finally:  # steps that were taken are told of, even where the next batch cannot be read
            if waiting:
                self._report(*waiting, on_step)

    def _report(
        self, taken: int, batches: list[Any], metrics: dict[str, jax.Array], on_step: Heard
    ) -> None:
        """Tell of the steps after the first `taken`, which were one dispatch."""
        values = {name: np.atleast_1d(value) for name, value in jax.device_get(metrics).items()}
        for index, loss in enumerate(values["loss"]):
            number = taken + index + 1
            if not np.isfinite(loss):
                reason = self._step.reason(self.state, batches[index])
                remedy = f": {reason}" if reason else "; use a smaller learning rate"
                raise TrainingError(f"the loss is {loss} at step {number}{remedy}")
            on_step(number, {name: float(value[index]) for name, value in values.items()})


def fit(
    step: TrainStep,
    batches: Iterable[Any],
    steps: int,
    on_step: Heard = lambda step, metrics: None,
) -> TrainState:
    """Take a number of steps, one batch each; the step's own state stays whole.

    Args:
        step: the training step; its `state` is where the run begins.
        batches: at least `steps` batches as the step's objective wants them.
        steps: how many to take.
        on_step: called after every step with its number, from 1, and its metrics.

    Raises:
        TrainingError: a loss that is not finite, or too few batches.

    >>> from flaxnets import create
    >>> from flaxnets.tasks import classification
    >>> from flaxnets.training import Phase, optimizers
    >>> model = create("feedforward", variant="logits")
    >>> step = TrainStep(model, Phase(classification.objective(), optimizers.adam()))
    >>> batch = np.ones((4, 100), np.float32), np.zeros(4, np.int32)
    >>> int(fit(step, [batch] * 3, 3).step)
    3
    """
    given = iter(batches)

    def batch(number: int) -> Any:
        try:
            return next(given)
        except StopIteration:
            raise TrainingError(
                f"the batches ended after step {number} of {steps}; give more"
            ) from None

    trainer = Trainer(step, batch, state=copied(step.state))
    trainer.advance(steps, on_step)
    return trainer.state


class Predictor:
    """Outputs in evaluation mode, compiled once for all models of one structure.

    Args:
        model: of that structure.
    """

    def __init__(self, model: nnx.Module) -> None:
        self._graph = nnx.graphdef(_evaluation_view(model))
        self._calls: dict[str, Callable] = {}

    def __call__(
        self, model: nnx.Module, inputs: Any, part: str = "__call__", batch_size: int = 500
    ) -> np.ndarray:
        """Outputs for all inputs, batch by batch; see `predict`."""
        state, whole = nnx.state(_evaluation_view(model)), together(inputs)
        call = self._calls.setdefault(part, jax.jit(functools.partial(self._forward, part)))
        starts = range(0, len(whole[0]), batch_size)
        return np.concatenate([call(state, [x[i : i + batch_size] for x in whole]) for i in starts])

    def _forward(self, part: str, state: Any, given: list[Any]) -> jax.Array:
        output = getattr(nnx.merge(self._graph, state, copy=True), part)(*given)
        return output[0] if isinstance(output, tuple) else output


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
    return Predictor(model)(model, inputs, part, batch_size)


def _evaluation_view(model: nnx.Module) -> nnx.Module:
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)
