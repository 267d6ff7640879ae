"""What torch's optimizers are made of: a state, and a rule that moves one parameter.

The fields of a state have torch's names. Each slot is a tree like the parameters', `step` counts
for all of them, and a slot that the options do not need is None.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from flaxnets.training.schedules import weak

Scheduled: TypeAlias = float | Callable[[Any], Any]
Betas: TypeAlias = tuple[Scheduled, float]


class SGDState(NamedTuple):
    """Steps taken and, with momentum, the running sum of the gradients."""

    step: jax.Array
    momentum_buffer: Any = None


class AdamState(NamedTuple):
    """Steps taken, the first two moments and, with AMSGrad, the largest second moment."""

    step: jax.Array
    exp_avg: Any
    exp_avg_sq: Any
    max_exp_avg_sq: Any = None


class RMSpropState(NamedTuple):
    """Steps taken, the second moment, with momentum its buffer, centred the first moment."""

    step: jax.Array
    square_avg: Any
    momentum_buffer: Any = None
    grad_avg: Any = None


class AdagradState(NamedTuple):
    """Steps taken and the sum of the squared gradients."""

    step: jax.Array
    sum: Any


class AdadeltaState(NamedTuple):
    """Steps taken and the running means of squared gradients and of squared updates."""

    step: jax.Array
    square_avg: Any
    acc_delta: Any


class AdamaxState(NamedTuple):
    """Steps taken, the first moment and the decayed maximum of the gradients' magnitudes."""

    step: jax.Array
    exp_avg: Any
    exp_inf: Any


class NAdamState(NamedTuple):
    """Steps taken, the product of all momenta so far (float32 as in torch) and two moments."""

    step: jax.Array
    mu_product: jax.Array
    exp_avg: Any
    exp_avg_sq: Any


class RAdamState(NamedTuple):
    """Steps taken and two moments."""

    step: jax.Array
    exp_avg: Any
    exp_avg_sq: Any


def transformation(
    kind: Callable[..., Any],
    slots: dict[str, float],
    rule: Callable[..., Callable],
    lr: Scheduled,
    weight_decay: float,
    maximize: bool,
    decoupled: bool = False,
    products: dict[str, Callable] | None = None,
) -> optax.GradientTransformation:
    """An optimizer from what it does to one parameter.

    Args:
        kind: of the state.
        slots: what each parameter has in the state, and what it begins with.
        rule: `rule(step, rate, *products)` is the function that takes one gradient and its
            slots to the update and the new slots.
        lr: learning rate.
        weight_decay: times the parameter.
        maximize: go up the gradient.
        decoupled: the decay is no part of the gradient.
        products: numbers of the state that begin at 1 and are multiplied by a function of
            the step.
    """
    factors = products or {}

    def init(params):
        trees = {
            name: jax.tree.map(lambda p, start=start: jnp.full_like(p, start), params)
            for name, start in slots.items()
        }
        ones = {name: jnp.ones((), jnp.float32) for name in factors}
        return kind(step=jnp.zeros((), jnp.int32), **ones, **trees)

    def update(grads, state, params=None):
        if weight_decay and params is None:
            raise ValueError(f"weight_decay {weight_decay} needs params; give them to update")
        step = optax.safe_increment(state.step)
        rate = at(lr, state.step)
        numbers = {}
        for name, factor in factors.items():
            before = getattr(state, name)
            numbers[name] = before * factor(step).astype(before.dtype)
        move = rule(step, rate, *numbers.values())

        def leaf(grad, param, *own):
            kept = grad.dtype, *(slot.dtype for slot in own)
            grad = -grad if maximize else grad
            if weight_decay and not decoupled:
                grad = grad + weight_decay * param
            change, *own = move(grad, *own)
            if weight_decay and decoupled:
                change = change - rate * weight_decay * param
            return [x.astype(dtype) for x, dtype in zip((change, *own), kept, strict=True)]

        tree: Any
        flat, tree = jax.tree.flatten(grads)
        flat = [jnp.asarray(grad) for grad in flat]
        held = [tree.flatten_up_to(getattr(state, name)) for name in slots]
        of_params = [None] * len(flat) if params is None else tree.flatten_up_to(params)
        rows = [leaf(*row) for row in zip(flat, of_params, *held, strict=True)]
        updates, *after = (tree.unflatten(column) for column in zip(*rows, strict=True))
        trees = dict(zip(slots, after, strict=True))
        return updates, kind(step=step, **numbers, **trees)

    return optax.GradientTransformation(init, update)


def at(value: Scheduled, count: jax.Array) -> Any:
    """A number, or that of a schedule after `count` steps.

    >>> at(0.1, 3), at(lambda count: 0.1 * count, 10)
    (0.1, 1.0)
    """
    return value(count) if callable(value) else value


def _log(beta: Any) -> Any:
    """The logarithm of a beta, in double precision if it is a number."""
    return jnp.log(beta) if isinstance(beta, jax.Array) else math.log(beta or math.ulp(0.0))


def correction(beta: Any, step: jax.Array) -> jax.Array:
    """1 - beta**step, without the digits that float32 would lose to the difference.

    >>> round(float(correction(0.999, jnp.int32(1))), 9)
    0.001
    """
    return -jnp.expm1(_log(beta) * weak(step))


def average_length(beta: float, step: jax.Array) -> jax.Array:
    """RAdam's length, 2 / (1 - beta) - 1 - 2 step beta^step / (1 - beta^step), step from 1.

    The difference loses most digits of float32 in the first steps: with x = -step log(beta) it
    is a constant and a multiple of 1 - x / (exp(x) - 1), whose series begins with x / 2.

    >>> float(average_length(0.0, jnp.int32(1)))
    1.0
    """
    rate = -_log(beta)
    x = rate * weak(step)
    small = jnp.minimum(x, 0.5)
    series = small / 2 - sum(c * small**n for n, c in zip(range(2, 14, 2), _BERNOULLI, strict=True))
    grown = jnp.where(x < 0.5, series, 1 - x / jnp.expm1(x))
    return 2 / (1 - beta) - 1 - 2 / rate + 2 / rate * grown


# B_n / n! for n = 2, 4, ... 12, of the series of x / (exp(x) - 1).
_BERNOULLI = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000)


def require_not_negative(**values: Scheduled) -> None:
    """Refuse options below 0, NaN among them; schedules pass.

    >>> require_not_negative(lr=0.1, momentum=lambda count: 0.9)
    """
    for name, value in values.items():
        if not callable(value) and not value >= 0:
            raise ValueError(f"{name} {value} is not a number of 0 or more")


def require_betas(betas: Betas) -> None:
    """Refuse betas out of range; schedules pass.

    >>> require_betas((0.9, 0.999))
    """
    for index, beta in enumerate(betas):
        if not callable(beta) and not 0 <= beta < 1:
            raise ValueError(
                f"betas[{index}] {beta} is out of range; use 0 or more and less than 1"
            )
