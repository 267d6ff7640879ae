"""torch.optim's optimizers as optax transformations, with its argument names, defaults and slots.

A learning rate, a momentum and the first of two betas may each be a schedule: a function of the
number of steps taken before, see `flaxnets.training.schedules`.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import optax

from flaxnets.training.schedules import weak
from flaxnets.training.update_rules import (
    AdadeltaState,
    AdagradState,
    AdamaxState,
    AdamState,
    Betas,
    NAdamState,
    RAdamState,
    RMSpropState,
    Scheduled,
    SGDState,
    at,
    average_length,
    correction,
    require_betas,
    require_not_negative,
    transformation,
)


def sgd(
    lr: Scheduled = 1e-3,
    momentum: Scheduled = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """torch.optim.SGD; the first step's momentum buffer is the whole gradient, undampened.

    Args:
        lr: learning rate.
        momentum: share of the buffer that is kept.
        dampening: share of the gradient that stays out of the buffer.
        weight_decay: times the parameter, added to the gradient (coupled).
        nesterov: look ahead along the momentum (Sutskever et al. 2013).
        maximize: go up the gradient.

    Raises:
        ValueError: a negative rate, or nesterov without momentum or with dampening.

    >>> optimizer = sgd(0.1)
    >>> updates, state = optimizer.update([jnp.ones(1)], optimizer.init([jnp.ones(1)]))
    >>> round(float(updates[0][0]), 4), state.momentum_buffer
    (-0.1, None)
    """
    require_not_negative(lr=lr, momentum=momentum, weight_decay=weight_decay)
    if nesterov and not momentum:
        raise ValueError(f"nesterov needs a momentum above 0, not {momentum}")
    if nesterov and dampening:
        raise ValueError(f"nesterov needs a dampening of 0, not {dampening}")

    def rule(step, rate):
        kept = at(momentum, step - 1)
        added = jnp.where(step == 1, 1.0, 1.0 - dampening) if dampening else 1.0

        def move(grad, buffer=None):
            if buffer is None:
                return (-rate * grad,)
            buffer = kept * buffer + added * grad
            return -rate * (grad + kept * buffer if nesterov else buffer), buffer

        return move

    slots = {"momentum_buffer": 0.0} if momentum else {}
    return transformation(SGDState, slots, rule, lr, weight_decay, maximize)


def adam(
    lr: Scheduled = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
) -> optax.GradientTransformation:
    """torch.optim.Adam (Kingma, Ba 2014, arXiv 1412.6980).

    Args:
        lr: learning rate.
        betas: shares of the two moments that are kept.
        eps: added to the root of the second moment, after the bias correction.
        weight_decay: times the parameter, added to the gradient.
        amsgrad: divide by the largest second moment so far (Reddi et al. 2018,
            arXiv 1904.09237).
        maximize: go up the gradient.
        decoupled_weight_decay: take the decay off the parameter instead, as `adamw` does.

    Raises:
        ValueError: a negative number, or betas of 1 or more.

    >>> optimizer = adam(0.1)
    >>> updates, _ = optimizer.update([jnp.ones(1)], optimizer.init([jnp.ones(1)]))
    >>> round(float(updates[0][0]), 4)
    -0.1
    """
    require_not_negative(lr=lr, eps=eps, weight_decay=weight_decay)
    require_betas(betas)

    def rule(step, rate):
        beta1, beta2 = at(betas[0], step - 1), betas[1]
        size = rate / correction(beta1, step)
        root = jnp.sqrt(correction(beta2, step))

        def move(grad, exp_avg, exp_avg_sq, largest=None):
            exp_avg += (1 - beta1) * (grad - exp_avg)
            exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * grad**2
            if largest is None:
                return -size * exp_avg / (jnp.sqrt(exp_avg_sq) / root + eps), exp_avg, exp_avg_sq
            largest = jnp.maximum(largest, exp_avg_sq)
            update = -size * exp_avg / (jnp.sqrt(largest) / root + eps)
            return update, exp_avg, exp_avg_sq, largest

        return move

    slots = {"exp_avg": 0.0, "exp_avg_sq": 0.0, **({"max_exp_avg_sq": 0.0} if amsgrad else {})}
    return transformation(
        AdamState, slots, rule, lr, weight_decay, maximize, decoupled_weight_decay
    )


def adamw(
    lr: Scheduled = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """torch.optim.AdamW (Loshchilov, Hutter 2017, arXiv 1711.05101): Adam, decay decoupled.

    Args:
        lr: learning rate.
        betas: shares of the two moments that are kept.
        eps: added to the root of the second moment, after the bias correction.
        weight_decay: times the learning rate and the parameter, taken off the parameter.
        amsgrad: divide by the largest second moment so far.
        maximize: go up the gradient.

    Raises:
        ValueError: a negative number, or betas of 1 or more.

    >>> optimizer, params = adamw(0.1), [jnp.ones(1)]
    >>> updates, _ = optimizer.update([jnp.ones(1)], optimizer.init(params), params)
    >>> round(float(updates[0][0]), 4)
    -0.101
    """
    return adam(
        lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True
    )


def rmsprop(
    lr: Scheduled = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: Scheduled = 0.0,
    centered: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """torch.optim.RMSprop (Tieleman, Hinton 2012, lecture 6e of Neural Networks).

    Args:
        lr: learning rate; it multiplies what comes out of the momentum.
        alpha: share of the second moment that is kept.
        eps: added to the root of the second moment.
        weight_decay: times the parameter, added to the gradient.
        momentum: share of the buffer that is kept.
        centered: divide by the standard deviation (Graves 2013, arXiv 1308.0850).
        maximize: go up the gradient.

    Raises:
        ValueError: a negative number.

    >>> optimizer = rmsprop(0.1, alpha=0.75)
    >>> updates, _ = optimizer.update([jnp.ones(1)], optimizer.init([jnp.ones(1)]))
    >>> round(float(updates[0][0]), 4)
    -0.2
    """
    require_not_negative(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
    slots = {"square_avg": 0.0}
    slots |= {"momentum_buffer": 0.0} if momentum else {}
    slots |= {"grad_avg": 0.0} if centered else {}

    def rule(step, rate):
        def move(grad, *own):
            slot = dict(zip(slots, own, strict=True))
            slot["square_avg"] = variance = alpha * slot["square_avg"] + (1 - alpha) * grad**2
            if centered:
                slot["grad_avg"] += (1 - alpha) * (grad - slot["grad_avg"])
                variance = variance - slot["grad_avg"] ** 2
            update = grad / (jnp.sqrt(variance) + eps)
            if momentum:
                update += at(momentum, step - 1) * slot["momentum_buffer"]
                slot["momentum_buffer"] = update
            return -rate * update, *slot.values()

        return move

    return transformation(RMSpropState, slots, rule, lr, weight_decay, maximize)


def adagrad(
    lr: Scheduled = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """torch.optim.Adagrad (Duchi, Hazan, Singer 2011, JMLR 12).

    Args:
        lr: learning rate.
        lr_decay: the rate is divided by 1 + this times the number of steps taken before.
        weight_decay: times the parameter, added to the gradient.
        initial_accumulator_value: what the sum of squares begins with.
        eps: added to the root of the sum of squares.
        maximize: go up the gradient.

    Raises:
        ValueError: a negative number.

    >>> optimizer = adagrad(0.1, initial_accumulator_value=3.0)
    >>> updates, _ = optimizer.update([jnp.ones(1)], optimizer.init([jnp.ones(1)]))
    >>> round(float(updates[0][0]), 4)
    -0.05
    """
    require_not_negative(
        lr=lr,
        lr_decay=lr_decay,
        weight_decay=weight_decay,
        initial_accumulator_value=initial_accumulator_value,
        eps=eps,
    )

    def rule(step, rate):
        size = rate / (1 + weak(step - 1) * lr_decay)

        def move(grad, total):
            total += grad**2
            return -size * grad / (jnp.sqrt(total) + eps), total

        return move

    slots = {"sum": initial_accumulator_value}
    return transformation(AdagradState, slots, rule, lr, weight_decay, maximize)


def adadelta(
    lr: Scheduled = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """torch.optim.Adadelta (Zeiler 2012, arXiv 1212.5701).

    Args:
        lr: learning rate.
        rho: share of both running means that is kept.
        eps: added to both running means, inside their roots.
        weight_decay: times the parameter, added to the gradient.
        maximize: go up the gradient.

    Raises:
        ValueError: a negative number, or a rho above 1.

    >>> optimizer = adadelta()
    >>> updates, _ = optimizer.update([jnp.ones(1)], optimizer.init([jnp.ones(1)]))
    >>> round(float(updates[0][0]), 4)
    -0.0032
    """
    require_not_negative(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay)
    if rho > 1:
        raise ValueError(f"rho {rho} is above 1; use 0 to 1")

    def rule(step, rate):
        def move(grad, square_avg, acc_delta):
            square_avg = rho * square_avg + (1 - rho) * grad**2
            delta = jnp.sqrt(acc_delta + eps) / jnp.sqrt(square_avg + eps) * grad
            return -rate * delta, square_avg, rho * acc_delta + (1 - rho) * delta**2

        return move

    slots = {"square_avg": 0.0, "acc_delta": 0.0}
    return transformation(AdadeltaState, slots, rule, lr, weight_decay, maximize)


def adamax(
    lr: Scheduled = 2e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """torch.optim.Adamax (Kingma, Ba 2014, arXiv 1412.6980, section 7.1).

    Args:
        lr: learning rate.
        betas: shares of the first moment and of the maximum that are kept.
        eps: added to the magnitude of the gradient, before the maximum.
        weight_decay: times the parameter, added to the gradient.
        maximize: go up the gradient.

    Raises:
        ValueError: a negative number, or betas of 1 or more.

    >>> optimizer = adamax(0.1)
    >>> updates, _ = optimizer.update([jnp.ones(1)], optimizer.init([jnp.ones(1)]))
    >>> round(float(updates[0][0]), 4)
    -0.1
    """
    require_not_negative(lr=lr, eps=eps, weight_decay=weight_decay)
    require_betas(betas)

    def rule(step, rate):
        beta1, beta2 = at(betas[0], step - 1), betas[1]
        size = rate / correction(beta1, step)

        def move(grad, exp_avg, exp_inf):
            exp_avg += (1 - beta1) * (grad - exp_avg)
            exp_inf = jnp.maximum(beta2 * exp_inf, jnp.abs(grad) + eps)
            return -size * exp_avg / exp_inf, exp_avg, exp_inf

        return move

    slots = {"exp_avg": 0.0, "exp_inf": 0.0}
    return transformation(AdamaxState, slots, rule, lr, weight_decay, maximize)


def nadam(
    lr: Scheduled = 2e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """torch.optim.NAdam (Dozat 2016, ICLR workshop): Adam with Nesterov's momentum.

    Args:
        lr: learning rate.
        betas: shares of the two moments that are kept.
        eps: added to the root of the second moment, after the bias correction.
        weight_decay: times the parameter, added to the gradient.
        momentum_decay: how fast the momentum rises to its beta: psi of 0.96^(t psi).
        decoupled_weight_decay: take the decay, times the rate, off the parameter instead.
        maximize: go up the gradient.

    Raises:
        ValueError: a negative number, or betas of 1 or more.

    >>> optimizer = nadam(0.1)
    >>> updates, _ = optimizer.update([jnp.ones(1)], optimizer.init([jnp.ones(1)]))
    >>> round(float(updates[0][0]), 3)
    -0.106
    """
    require_not_negative(lr=lr, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay)
    require_betas(betas)

    def mu(step, ahead=0):
        beta1 = at(betas[0], step - 1)
        return beta1 * (1 - 0.5 * jnp.exp(math.log(0.96) * momentum_decay * weak(step + ahead)))

    def rule(step, rate, mu_product):
        beta1, beta2 = at(betas[0], step - 1), betas[1]
        now, ahead = mu(step), mu(step, ahead=1)
        mu_product = mu_product.astype(now.dtype)
        of_grad = rate * (1 - now) / (1 - mu_product)
        of_average = rate * ahead / (1 - mu_product * ahead)
        root = jnp.sqrt(correction(beta2, step))

        def move(grad, exp_avg, exp_avg_sq):
            exp_avg += (1 - beta1) * (grad - exp_avg)
            exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * grad**2
            scale = jnp.sqrt(exp_avg_sq) / root + eps
            return -(of_grad * grad + of_average * exp_avg) / scale, exp_avg, exp_avg_sq

        return move

    slots = {"exp_avg": 0.0, "exp_avg_sq": 0.0}
    return transformation(
        NAdamState,
        slots,
        rule,
        lr,
        weight_decay,
        maximize,
        decoupled_weight_decay,
        products={"mu_product": mu},
    )


def radam(
    lr: Scheduled = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """torch.optim.RAdam (Liu et al. 2019, arXiv 1908.03265): Adam whose start is rectified.

    Args:
        lr: learning rate.
        betas: shares of the two moments that are kept.
        eps: added to the root of the second moment, before the bias correction.
        weight_decay: times the parameter, added to the gradient.
        decoupled_weight_decay: take the decay, times the rate, off the parameter instead.
        maximize: go up the gradient.

    Raises:
        ValueError: a negative number, or betas of 1 or more.

    >>> optimizer = radam(0.1)
    >>> updates, _ = optimizer.update([jnp.ones(1)], optimizer.init([jnp.ones(1)]))
    >>> round(float(updates[0][0]), 4)
    -0.1
    """
    require_not_negative(lr=lr, eps=eps, weight_decay=weight_decay)
    require_betas(betas)

    def rule(step, rate):
        beta1, beta2 = at(betas[0], step - 1), betas[1]
        size = rate / correction(beta1, step)
        limit, length = 2 / (1 - beta2) - 1, average_length(beta2, step)
        rectified = length > 5  # below, the variance of the second moment is infinite
        known = jnp.maximum(length, 5.0)
        shrink = (known - 4) * (known - 2) * limit / ((limit - 4) * (limit - 2) * known)
        adaptive = jnp.sqrt(jnp.where(rectified, shrink, 1.0) * correction(beta2, step))

        def move(grad, exp_avg, exp_avg_sq):
            exp_avg += (1 - beta1) * (grad - exp_avg)
            exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * grad**2
            scale = jnp.where(rectified, adaptive / (jnp.sqrt(exp_avg_sq) + eps), 1.0)
            return -size * exp_avg * scale, exp_avg, exp_avg_sq

        return move

    slots = {"exp_avg": 0.0, "exp_avg_sq": 0.0}
    return transformation(
        RAdamState, slots, rule, lr, weight_decay, maximize, decoupled_weight_decay
    )


BY_NAME: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
    "adadelta": adadelta,
    "adamax": adamax,
    "nadam": nadam,
    "radam": radam,
}
