"""The training loop that a PyTorch user would write, and prediction in batches."""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.optim import swa_utils
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from torch_ref.arrays import channels_first, tensor
from torch_ref.training.objective import Objective, together
from torch_ref.training.optimizers import put


class TrainingError(RuntimeError):
    """A run that cannot go on; the message is one line."""


class Phase(NamedTuple):
    """One loss and the parameters that it moves: those of a submodule, or all for "".

    The scheduler, if there is one, takes a step after each of the optimizer; one that watches a
    plateau is shown the loss.
    """

    objective: Objective
    optimizer: torch.optim.Optimizer
    part: str = ""
    scheduler: Any = None


def parameters(model: nn.Module, part: str = "") -> list[nn.Parameter]:
    """The parameters that a phase of that part moves."""
    return list(model.get_submodule(part).parameters())


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """What an optimizer moves, in the order in which its state counts them."""
    return [value for group in optimizer.param_groups for value in group["params"]]


Heard = Callable[[int, dict[str, float]], None]


class Trainer:
    """Takes training steps, one batch each; the model is trained in place.

    Args:
        model: any torch module.
        phases: what each step minimises, in order.
        batch: gives the inputs, in Flax's layout, and targets of a step by its number, from 0;
            inputs may be a tuple of several, as are then their axes.
        axes: of the inputs, see `flaxnets.specs.Input`.
        precision: "bfloat16" for `torch.autocast`, which leaves weights in float32.
        accumulate: how many equal parts a batch is cut into, whose gradients are averaged.
        clip_norm: the largest norm of the gradients of a phase.
        clip_value: the largest magnitude of an entry of them.
        ema: share that an average of the weights keeps of itself at each step
            (`torch.optim.swa_utils.AveragedModel`); None for no average.
        remat: whether to compute again in the backward pass whatever is neither a matrix
            product nor a convolution (`torch.utils.checkpoint`).
        randomness: gives the context in which a phase draws: of the number of the step, of
            the phase and of the part of the batch; None for torch's own generator.

    Attributes:
        taken: how many steps were taken.
        average: the model with averaged weights, None without `ema`.

    >>> model = nn.Linear(3, 2)
    >>> from torch_ref.tasks import classification
    >>> batch = np.ones((4, 3), np.float32), np.zeros(4, np.int32)
    >>> phase = Phase(classification.objective(), torch.optim.SGD(model.parameters(), lr=0.1))
    >>> trainer = Trainer(model, [phase], lambda number: batch, "bf")
    >>> trainer.advance(2)
    >>> trainer.taken
    2
    """

    def __init__(
        self,
        model: nn.Module,
        phases: Sequence[Phase],
        batch: Callable[[int], tuple[Any, Any]],
        axes: str | tuple[str, ...],
        *,
        precision: Literal["float32", "bfloat16"] = "float32",
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        ema: float | None = None,
        remat: bool = False,
        randomness: Callable[[int, int, int], AbstractContextManager] | None = None,
    ) -> None:
        self.model, self.phases, self._batch, self._axes = model, phases, batch, axes
        self._narrow, self._accumulate = precision == "bfloat16", accumulate
        self._clip_norm, self._clip_value = clip_norm, clip_value
        self._remat, self._randomness = remat, randomness
        self.average = (
            None
            if ema is None
            else swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(ema))
        )
        self.taken = 0

    @property
    def trained(self) -> nn.Module:
        """The model to evaluate: that with averaged weights where they are kept.

        Its statistics are the newest ones.
        """
        if self.average is None:
            return self.model
        whole = copy.deepcopy(self.model)
        weights = dict(self.average.module.named_parameters(remove_duplicate=False))
        whole.load_state_dict({**self.model.state_dict(), **weights})
        return whole

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
            stopping: asked before every step whether to stop there.

        Raises:
            TrainingError: a loss that is not finite; the step is named.
        """
        self.model.train()
        while self.taken < until and not stopping():
            inputs, targets = self._batch(self.taken)
            metrics = self._step(batch_of(inputs, targets, self._axes))
            self.taken += 1
            if not torch.isfinite(metrics["loss"]):
                raise TrainingError(
                    f"the loss is {metrics['loss'].item()} at step {self.taken}; "
                    "use a smaller learning rate"
                )
            on_step(self.taken, {name: float(value) for name, value in metrics.items()})

    def _step(self, batch: Any) -> dict[str, torch.Tensor]:
        losses: list[torch.Tensor] = []
        metrics: dict[str, torch.Tensor] = {}
        for number, phase in enumerate(self.phases):
            loss, figures = self._gradients(number, phase, batch)
            own = parameters_of(phase.optimizer)
            if self._clip_norm is not None:
                nn.utils.clip_grad_norm_(own, self._clip_norm)
            if self._clip_value is not None:
                nn.utils.clip_grad_value_(own, self._clip_value)
            phase.optimizer.step()
            if isinstance(phase.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                phase.scheduler.step(loss.item())
            elif phase.scheduler is not None:
                phase.scheduler.step()
            losses.append(loss)
            metrics |= {f"{phase.part}_loss": loss} if phase.part else {}
            metrics |= figures
        if self.average is not None:
            self.average.update_parameters(self.model)
        return {"loss": sum(losses[1:], losses[0]), **metrics}

    def _gradients(
        self, number: int, phase: Phase, batch: Any
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Leave the gradients of a phase in its parameters; mean loss and figures."""
        own = parameters_of(phase.optimizer)
        phase.optimizer.zero_grad()
        found = []
        for index, part in enumerate(_parts(batch, self._accumulate)):
            draws = self._randomness or (lambda *_: contextlib.nullcontext())
            narrow = torch.autocast("cpu", torch.bfloat16, enabled=self._narrow)
            with draws(self.taken, number, index), narrow:
                if self._remat:
                    loss, figures = checkpoint(
                        phase.objective,
                        self.model,
                        part,
                        use_reentrant=False,
                        context_fn=functools.partial(
                            _keeping_products, self.model, draws(self.taken, number, index)
                        ),
                    )
                else:
                    loss, figures = phase.objective(self.model, part)
                (loss / self._accumulate).backward(inputs=own)
            found.append({"": loss.detach(), **{k: v.detach() for k, v in figures.items()}})
        mean = {name: sum(one[name] for one in found) / len(found) for name in found[0]}
        return mean.pop(""), mean

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """All that the next step depends on, as arrays by name and as what JSON holds."""
        arrays = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        rest = []
        for index, phase in enumerate(self.phases):
            held = phase.optimizer.state_dict()
            for number, slots in held["state"].items():
                for slot, value in slots.items():
                    if value is not None:
                        arrays[f"optimizer.{index}.{number}.{slot}"] = torch.as_tensor(value)
            schedule = phase.scheduler and _without_milestones(phase.scheduler.state_dict())
            rest.append({"groups": held["param_groups"], "schedule": schedule})
        if self.average is not None:
            arrays["averages"] = self.average.n_averaged
            for name, value in self.average.module.named_parameters():
                arrays[f"average.{name}"] = value
        return (
            {name: value.detach().numpy().copy() for name, value in arrays.items()},
            {"taken": self.taken, "phases": rest},
        )

    def load_state(self, arrays: Mapping[str, np.ndarray], rest: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        held = {name: torch.tensor(value) for name, value in arrays.items()}

        def under(prefix: str) -> dict[str, torch.Tensor]:
            return {k.removeprefix(prefix): v for k, v in held.items() if k.startswith(prefix)}

        self.model.load_state_dict(under("model."))
        for index, (phase, told) in enumerate(zip(self.phases, rest["phases"], strict=True)):
            slots: dict[int, dict[str, torch.Tensor]] = {}
            for name, value in under(f"optimizer.{index}.").items():
                number, _, slot = name.partition(".")
                slots.setdefault(int(number), {})[slot] = value
            own = parameters_of(phase.optimizer)
            phase.optimizer.load_state_dict({"state": {}, "param_groups": told["groups"]})
            put(phase.optimizer, {own[number]: of_one for number, of_one in slots.items()})
            if phase.scheduler is not None:
                phase.scheduler.load_state_dict(told["schedule"])
        if self.average is not None:
            self.average.n_averaged.copy_(held["averages"])
            for name, value in self.average.module.named_parameters():
                value.data.copy_(held[f"average.{name}"])
        self.taken = rest["taken"]

    def shape(self) -> dict[str, np.ndarray]:
        """Arrays of the names, shapes and dtypes that `state` has after a step."""
        other = copy.deepcopy(self)
        for phase in other.phases:
            for group in phase.optimizer.param_groups:
                for value in group["params"]:
                    value.grad = torch.zeros_like(value)
            phase.optimizer.step()
        return other.state()[0]


def fit(
    model: nn.Module,
    phases: Sequence[Phase],
    batches: Iterable[tuple[Any, np.ndarray]],
    steps: int,
    axes: str | tuple[str, ...],
    on_step: Heard = lambda step, metrics: None,
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
    >>> from torch_ref.tasks import classification
    >>> batch = np.ones((4, 3), np.float32), np.zeros(4, np.int32)
    >>> phase = Phase(classification.objective(), torch.optim.SGD(model.parameters(), lr=0.1))
    >>> fit(model, [phase], [batch] * 2, 2, "bf")
    """
    given = iter(batches)

    def batch(number: int) -> Any:
        try:
            return next(given)
        except StopIteration:
            raise TrainingError(
                f"the batches ended after step {number} of {steps}; give more"
            ) from None

    Trainer(model, phases, batch, axes).advance(steps, on_step)


def _without_milestones(state: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's state without the Counter that JSON would give other keys; it never changes."""
    return {
        name: [_without_milestones(one) for one in value] if name == "_schedulers" else value
        for name, value in state.items()
        if name != "milestones"
    }


def _parts(batch: Any, count: int) -> list[Any]:
    """A batch cut into equal parts along its first axis."""
    if count == 1:
        return [batch]
    if batch is None:
        return [None] * count
    if isinstance(batch, tuple):
        return list(zip(*(_parts(entry, count) for entry in batch), strict=True))
    return list(batch.chunk(count))


def _keeping_products(model: nn.Module, draws: AbstractContextManager) -> tuple[Any, Any]:
    """The contexts of rematerialisation, which keeps what is longer to compute than to read.

    What is computed again draws the same numbers and leaves the statistics as they are. Torch's
    recurrent layers write into their products, so that of them nothing can be kept.
    """
    forward, again = contextlib.nullcontext(), contextlib.nullcontext()
    if not any(isinstance(part, nn.RNNBase | nn.RNNCellBase) for part in model.modules()):
        forward, again = create_selective_checkpoint_contexts(
            [
                torch.ops.aten.mm.default,
                torch.ops.aten.addmm.default,
                torch.ops.aten.bmm.default,
                torch.ops.aten.convolution.default,
            ]
        )

    @contextlib.contextmanager
    def once_more() -> Iterator[None]:
        held = [value.clone() for value in model.buffers()]
        try:
            with draws, again:
                yield
        finally:
            for value, before in zip(model.buffers(), held, strict=True):
                value.data.copy_(before)

    return forward, once_more()


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
