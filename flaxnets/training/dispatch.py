"""How many steps go into one dispatch, and in which form: chosen by a short timed probe.

A dispatch costs a fraction of a millisecond however little it computes, so small networks train
several times faster when one holds many steps. XLA runs a convolution inside a loop 5 to 60 times
slower on a CPU (jax #12868), so there a step with convolutions is never scanned; unrolled it is
where a number of steps is asked for.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.extend.core import jaxprs_in_params

from flaxnets.training.step import TrainState, TrainStep, copied, stack

ROUNDS = 5  # of the probe, each of which times every candidate
TURN = 0.05  # seconds of one candidate in one round
LONGEST = 0.06  # seconds of one dispatch: beyond, what a dispatch costs is noise
GAIN = 0.95  # of the time of single steps, which a candidate has to stay below


class Dispatch(NamedTuple):
    """What is sent to the device at once; stored with a run, it makes the run repeatable.

    Unrolled steps differ from single ones by rounding, since XLA fuses them otherwise; a loop was
    seen to give the same bits for dense and recurrent networks, which nothing promises.

    Attributes:
        steps: training steps in one dispatch.
        form: "single" for one step, "scan" for a loop on the device, "unrolled" for a program
            that holds every step.

    >>> Dispatch(32, "scan")
    Dispatch(steps=32, form='scan')
    """

    steps: int = 1
    form: Literal["single", "scan", "unrolled"] = "single"

    def of(self, step: TrainStep) -> Callable[[TrainState, Any], tuple[TrainState, dict]]:
        """The call that takes this many steps.

        It takes one batch where the form is "single", else a `stack` of as many as `steps`, and
        donates its state.
        """
        calls = {"single": step.__call__, "scan": step.many, "unrolled": step.unrolled}
        return calls[self.form]


SINGLE = Dispatch()
SCANNED = Dispatch(8, "scan"), Dispatch(32, "scan")

Measure = Callable[[TrainStep, Any, Sequence[Dispatch], int], dict[Dispatch, float]]


def measure(
    step: TrainStep, batch: Any, candidates: Sequence[Dispatch], rounds: int
) -> dict[Dispatch, float]:
    """The seconds of one step under each candidate: medians over rounds in which each has a turn.

    The state that is trained meanwhile is a copy.
    """
    runs = {candidate: _Run(step, batch, candidate) for candidate in candidates}
    times: dict[Dispatch, list[float]] = {candidate: [] for candidate in candidates}
    for _ in range(rounds):
        for candidate, run in runs.items():
            times[candidate].append(run.turn())
    return {candidate: statistics.median(found) for candidate, found in times.items()}


def choose(step: TrainStep, batch: Any, measure: Measure = measure) -> Dispatch:
    """The fastest way to dispatch a step on its device that gives the bits of single steps.

    Beyond compilation it takes about a second; where one step is long, one run of it, and
    nothing else is compiled.

    Args:
        step: the training step; its state is left as it is.
        batch: one batch as the step's objectives want it.
        measure: gives the seconds of a step under each of some candidates.

    >>> from flaxnets import create
    >>> from flaxnets.tasks import classification
    >>> from flaxnets.training import Phase, optimizers
    >>> model = create("feedforward", variant="tiny")
    >>> step = TrainStep(model, Phase(classification.objective("probabilities"), optimizers.sgd()))
    >>> choose(step, (np.ones((4, 7), np.float32), np.zeros(4, int))).steps in (1, 8, 32)
    True
    """
    if not may_scan(step, batch):  # unrolled steps gain too little for the time they compile
        return SINGLE
    single = measure(step, batch, [SINGLE], 1)[SINGLE]
    candidates = [one for one in SCANNED if one.steps * single <= LONGEST]
    if not candidates:
        return SINGLE
    times = measure(step, batch, [SINGLE, *candidates], ROUNDS)
    for one in sorted(candidates, key=lambda one: times[one]):
        if times[one] < GAIN * times[SINGLE] and agrees(step, batch, one):
            return one
    return SINGLE


def agrees(step: TrainStep, batch: Any, dispatch: Dispatch) -> bool:
    """Whether a dispatch gives the very bits of as many single steps.

    XLA may fuse them otherwise; what is chosen by the clock must not change what a run computes.
    """
    one_by_one, at_once = (copied(step.state) for _ in range(2))
    for _ in range(dispatch.steps):
        one_by_one, _ = step(one_by_one, batch)
    at_once, _ = dispatch.of(step)(at_once, stack([batch] * dispatch.steps))
    leaves = zip(jax.tree.leaves(one_by_one), jax.tree.leaves(at_once), strict=True)
    return all(np.asarray(one).tobytes() == np.asarray(other).tobytes() for one, other in leaves)


def fixed(step: TrainStep, batch: Any, steps: int) -> Dispatch:
    """A dispatch of a given number of steps, in the form that suits the step on its device.

    Raises:
        ValueError: fewer steps than one.
    """
    if steps < 1:
        raise ValueError(f"steps per dispatch {steps} is too small; use 1 or more")
    if steps == 1:
        return SINGLE
    return Dispatch(steps, "scan" if may_scan(step, batch) else "unrolled")


def may_scan(step: TrainStep, batch: Any) -> bool:
    """Whether a loop of steps runs at full speed: not with convolutions on a CPU."""
    if any(device.platform != "cpu" for device in step.state.step.devices()):
        return True
    return not _convolves(jax.make_jaxpr(step.pure)(step.state, batch).jaxpr)


def _convolves(jaxpr: Any) -> bool:
    return any(
        equation.primitive is jax.lax.conv_general_dilated_p
        or any(map(_convolves, jaxprs_in_params(equation.params)))
        for equation in jaxpr.eqns
    )


class _Run:
    """A compiled dispatch that trains a copy of the state on one batch again and again."""

    def __init__(self, step: TrainStep, batch: Any, dispatch: Dispatch) -> None:
        self.call, self.steps = dispatch.of(step), dispatch.steps
        self.batch = batch if dispatch == SINGLE else stack([batch] * self.steps)
        self.state = copied(step.state)
        self.dispatches = 1
        self.turn()  # compiles
        self.dispatches = max(1, int(TURN / (self.turn() * self.steps)))

    def turn(self) -> float:
        """Seconds a step."""
        began = time.perf_counter()
        for _ in range(self.dispatches):
            self.state, _ = self.call(self.state, self.batch)
        jax.block_until_ready(self.state)
        return (time.perf_counter() - began) / (self.dispatches * self.steps)
