"""torch.optim.lr_scheduler's schedules as functions of the number of steps taken before.

Each takes torch's arguments, with the optimizer's learning rate in place of the optimizer, and
at count n is what torch's scheduler has set after n calls of its `step`. It is given to an
optimizer of `flaxnets.training.optimizers` as its `lr`.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax


def step_lr(lr: float, step_size: int, gamma: float = 0.1) -> optax.Schedule:
    """StepLR: times gamma after every step_size steps.

    Args:
        lr: the rate to begin with.
        step_size: steps between two changes.
        gamma: factor of a change.

    Raises:
        ValueError: a step_size below 1, or a gamma that is not positive.

    >>> [round(float(step_lr(1.0, 2)(count)), 4) for count in range(5)]
    [1.0, 1.0, 0.1, 0.1, 0.01]
    """
    _require(step_size >= 1, f"step_size {step_size} is below 1")
    log = _log(gamma)
    return lambda count: lr * jnp.exp(log * weak(jnp.asarray(count) // step_size))


def multi_step_lr(lr: float, milestones: Sequence[int], gamma: float = 0.1) -> optax.Schedule:
    """MultiStepLR: times gamma at each milestone.

    Args:
        lr: the rate to begin with.
        milestones: counts of steps; one that is named twice counts twice.
        gamma: factor of a change.

    Raises:
        ValueError: a negative milestone, or a gamma that is not positive.

    >>> [round(float(multi_step_lr(1.0, [1, 3])(count)), 4) for count in range(5)]
    [1.0, 0.1, 0.1, 0.01, 0.01]
    """
    for milestone in milestones:
        _require(milestone >= 0, f"milestone {milestone} is negative")
    log, places = _log(gamma), tuple(milestones)
    return lambda count: lr * jnp.exp(log * weak(sum(jnp.asarray(count >= m, int) for m in places)))


def exponential_lr(lr: float, gamma: float) -> optax.Schedule:
    """ExponentialLR: times gamma at every step.

    Args:
        lr: the rate to begin with.
        gamma: factor of a step.

    Raises:
        ValueError: a gamma that is not positive.

    >>> [round(float(exponential_lr(1.0, 0.5)(count)), 4) for count in range(4)]
    [1.0, 0.5, 0.25, 0.125]
    """
    log = _log(gamma)
    return lambda count: lr * jnp.exp(log * weak(count))


def cosine_annealing_lr(
    lr: float,
    T_max: int,  # noqa: N803 (torch's own name)
    eta_min: float = 0.0,
) -> optax.Schedule:
    """CosineAnnealingLR (Loshchilov, Hutter 2016, arXiv 1608.03983, without restarts).

    Args:
        lr: the rate to begin with.
        T_max: steps down to the smallest rate; as many lead up again.
        eta_min: the smallest rate.

    Raises:
        ValueError: a T_max below 1.

    >>> [round(float(cosine_annealing_lr(1.0, 2)(count)), 4) for count in range(5)]
    [1.0, 0.5, 0.0, 0.5, 1.0]
    """
    _require(T_max >= 1, f"T_max {T_max} is below 1")
    return lambda count: _cosine(lr, eta_min, (jnp.asarray(count, float) % (2 * T_max)) / T_max)


def linear_lr(
    lr: float, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
) -> optax.Schedule:
    """LinearLR: a straight line from one factor to the other, and flat after it.

    Args:
        lr: the rate that the factors multiply.
        start_factor: at the first step.
        end_factor: from total_iters steps on.
        total_iters: steps that the line takes.

    Raises:
        ValueError: a start_factor out of (0, 1], an end_factor out of [0, 1], or a
            total_iters below 1.

    >>> [round(float(linear_lr(1.0, 0.5, total_iters=2)(count)), 4) for count in range(4)]
    [0.5, 0.75, 1.0, 1.0]
    """
    _require(0 < start_factor <= 1, f"start_factor {start_factor} is not above 0 and up to 1")
    _require(0 <= end_factor <= 1, f"end_factor {end_factor} is not between 0 and 1")
    _require(total_iters >= 1, f"total_iters {total_iters} is below 1")
    rise = (end_factor - start_factor) / total_iters
    return lambda count: lr * (start_factor + rise * weak(jnp.minimum(count, total_iters)))


def sequential_lr(schedules: Sequence[optax.Schedule], milestones: Sequence[int]) -> optax.Schedule:
    """SequentialLR: schedules one after another, such as a warm-up and a decay.

    Args:
        schedules: each counts its steps from its own beginning.
        milestones: at which count each but the first begins.

    Raises:
        ValueError: milestones that are not one fewer than schedules, or do not rise.

    >>> warm = sequential_lr([linear_lr(1.0, 0.5, total_iters=2), step_lr(1.0, 1)], [2])
    >>> [round(float(warm(count)), 4) for count in range(5)]
    [0.5, 0.75, 1.0, 0.1, 0.01]
    """
    fits = len(milestones) == len(schedules) - 1
    _require(fits, f"{len(milestones)} milestones do not part {len(schedules)} schedules")
    for one, other in itertools.pairwise([0, *milestones]):
        _require(one < other, f"milestones {list(milestones)} do not rise from 1 on")
    parts = list(zip(schedules, [0, *milestones], strict=True))

    def schedule(count):
        rate = parts[0][0](count)
        for later, start in parts[1:]:
            rate = jnp.where(count < start, rate, later(jnp.maximum(count - start, 0)))
        return rate

    return schedule


def one_cycle_lr(
    max_lr: float,
    total_steps: int,
    pct_start: float = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> optax.Schedule:
    """OneCycleLR (Smith, Topin 2017, arXiv 1708.07120); `one_cycle_momentum` goes with it.

    From total_steps on, where torch's raises an error, the last rate stays.

    Args:
        max_lr: the largest rate.
        total_steps: of the whole cycle.
        pct_start: share of them that rises.
        anneal_strategy: the form of each slope.
        div_factor: max_lr over the rate to begin with.
        final_div_factor: the rate to begin with over the last one.
        three_phase: come down in two slopes, the first as long as the rise.

    Raises:
        ValueError: an option out of range.

    >>> cycle = one_cycle_lr(1.0, 5, pct_start=0.6, anneal_strategy="linear")
    >>> [round(float(cycle(count)), 4) for count in range(5)]
    [0.04, 0.52, 1.0, 0.5, 0.0]
    """
    low = max_lr / div_factor
    last = low / final_div_factor
    heights = [low, max_lr, low, last] if three_phase else [low, max_lr, last]
    return _cycle(heights, total_steps, pct_start, anneal_strategy)


def one_cycle_momentum(
    total_steps: int,
    pct_start: float = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    base_momentum: float = 0.85,
    max_momentum: float = 0.95,
    three_phase: bool = False,
) -> optax.Schedule:
    """What torch's OneCycleLR does to the momentum, or to the first beta: down, and up again.

    Args:
        total_steps: as those of `one_cycle_lr`, like all that is not named here.
        pct_start: share of them that falls.
        anneal_strategy: the form of each slope.
        base_momentum: the smallest.
        max_momentum: the largest, at both ends.
        three_phase: see `one_cycle_lr`.

    Raises:
        ValueError: an option out of range.

    >>> cycle = one_cycle_momentum(5, pct_start=0.6, anneal_strategy="linear")
    >>> [round(float(cycle(count)), 4) for count in range(5)]
    [0.95, 0.9, 0.85, 0.9, 0.95]
    """
    heights = [max_momentum, base_momentum, max_momentum] + [max_momentum] * three_phase
    return _cycle(heights, total_steps, pct_start, anneal_strategy)


class PlateauState(NamedTuple):
    """What ReduceLROnPlateau remembers: the rate, the best value, and its two counts."""

    lr: jax.Array
    best: jax.Array
    num_bad_epochs: jax.Array
    cooldown_counter: jax.Array


def reduce_lr_on_plateau(
    lr: float,
    mode: Literal["min", "max"] = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel",
    cooldown: int = 0,
    min_lr: float = 0.0,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """ReduceLROnPlateau: times factor when a value has stopped getting better.

    It is chained after an optimizer whose own `lr` is 1, and multiplies its updates by the
    rate. The value is `update`'s extra argument `value`, one each step; `TrainStep` gives the
    loss of the phase.

    Args:
        lr: the rate to begin with.
        mode: whether better is less or more.
        factor: of a reduction.
        patience: steps in a row that may bring nothing better.
        threshold: what is better by less than this is not better.
        threshold_mode: the threshold is a share of the best value, or a difference from it.
        cooldown: steps after a reduction that do not count.
        min_lr: the smallest rate.
        eps: a reduction by no more than this is left out.

    Raises:
        ValueError: a factor of 1 or more, or an unknown mode.

    >>> from flaxnets.training import optimizers
    >>> optimizer = optax.chain(optimizers.sgd(1.0), reduce_lr_on_plateau(0.1, patience=0))
    >>> state = optimizer.init([jnp.zeros(1)])
    >>> for value in (2.0, 3.0, 1.0):
    ...     updates, state = optimizer.update([jnp.ones(1)], state, value=value)
    >>> round(float(updates[0][0]), 4)
    -0.01
    """
    _require(0 <= factor < 1, f"factor {factor} is not between 0 and 1")
    _require(mode in ("min", "max"), f"mode {mode!r} is neither 'min' nor 'max'")
    _require(
        threshold_mode in ("rel", "abs"),
        f"threshold_mode {threshold_mode!r} is neither 'rel' nor 'abs'",
    )
    sign = 1 if mode == "min" else -1

    def init(params):
        counts = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return PlateauState(jnp.array(lr, float), jnp.array(sign * jnp.inf, float), *counts)

    def update(updates, state, params=None, *, value, **others):
        value = jnp.asarray(value, state.best.dtype)
        if threshold_mode == "rel":
            target = state.best * (1 - sign * threshold)
        else:
            target = state.best - sign * threshold
        better = sign * value < sign * target
        resting = state.cooldown_counter > 0
        bad = jnp.where(better | resting, 0, state.num_bad_epochs + 1)
        reduce = bad > patience
        lower = jnp.maximum(state.lr * factor, min_lr)
        after = PlateauState(
            lr=jnp.where(reduce & (state.lr - lower > eps), lower, state.lr),
            best=jnp.where(better, value, state.best),
            num_bad_epochs=jnp.where(reduce, 0, bad),
            cooldown_counter=jnp.where(
                reduce, cooldown, state.cooldown_counter - resting.astype(jnp.int32)
            ),
        )
        return jax.tree.map(lambda u: (u * state.lr).astype(u.dtype), updates), after

    return optax.GradientTransformationExtraArgs(init, update)


def weak(count: Any) -> jax.Array:
    """A count as a real number of weak type, one that takes the dtype of what it multiplies.

    >>> (weak(jnp.int32(3)) * jnp.ones((), jnp.bfloat16)).dtype
    dtype(bfloat16)
    """
    with jax.numpy_dtype_promotion("standard"):  # JAX has no other cast to a weak type
        return jnp.asarray(count) * 1.0


def _cycle(
    heights: Sequence[float], total_steps: int, pct_start: float, anneal_strategy: str
) -> optax.Schedule:
    """From height to height, over phases that end where torch's end."""
    _require(total_steps >= 1, f"total_steps {total_steps} is below 1")
    _require(0 <= pct_start <= 1, f"pct_start {pct_start} is not between 0 and 1")
    _require(
        anneal_strategy in ("cos", "linear"),
        f"anneal_strategy {anneal_strategy!r} is neither 'cos' nor 'linear'",
    )
    rise = pct_start * total_steps
    ends = [rise - 1, total_steps - 1]
    if len(heights) == 4:
        ends.insert(1, 2 * rise - 2)
    _require(
        all(ends),
        f"a phase of pct_start {pct_start} of {total_steps} steps has no length; use more steps",
    )
    slope = _cosine if anneal_strategy == "cos" else _line
    phases: list[Any] = list(zip([0.0, *ends], ends, heights, heights[1:], strict=False))

    def schedule(count):
        count = weak(jnp.minimum(count, total_steps - 1))
        # Of the phases that have not ended the first holds, else the last.
        start, end, high, low = phases[-1]
        rate = slope(high, low, (count - start) / (end - start))
        for start, end, high, low in reversed(phases[:-1]):
            rate = jnp.where(count <= end, slope(high, low, (count - start) / (end - start)), rate)
        return rate

    return schedule


def _cosine(start: float, end: float, share: jax.Array) -> jax.Array:
    """Half a cosine; its square form keeps the digits near the end."""
    return end + (start - end) * jnp.cos(math.pi / 2 * share) ** 2


def _line(start: float, end: float, share: jax.Array) -> jax.Array:
    return (end - start) * share + start


def _log(gamma: float) -> float:
    """The logarithm in double precision: a power in float32 would lose digits as counts grow."""
    _require(gamma > 0, f"gamma {gamma} is not positive")
    return math.log(gamma)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
