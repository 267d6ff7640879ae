"""torch.optim's optimizers, with its argument names and defaults, from optax's parts."""

from collections.abc import Callable

import optax


def sgd(
    lr: float = 1e-3, momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False
) -> optax.GradientTransformation:
    """torch.optim.SGD without dampening; weight decay is added to the gradient.

    Args:
        lr: learning rate.
        momentum: share of the last update that is kept.
        weight_decay: times the parameter, added to the gradient (coupled).
        nesterov: look ahead along the momentum (Sutskever et al. 2013).

    Raises:
        ValueError: nesterov without momentum.

    >>> import jax.numpy as jnp
    >>> updates, _ = sgd(0.1).update(jnp.ones(1), sgd(0.1).init(jnp.ones(1)), jnp.ones(1))
    >>> round(float(updates[0]), 4)
    -0.1
    """
    if nesterov and momentum <= 0:
        raise ValueError(f"nesterov needs a momentum above 0, not {momentum}")
    return optax.chain(
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
        optax.trace(momentum, nesterov) if momentum else optax.identity(),
        optax.scale_by_learning_rate(lr),
    )


def adam(
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """torch.optim.Adam (Kingma, Ba 2014, arXiv 1412.6980); weight decay is coupled.

    Args:
        lr: learning rate.
        betas: shares of the two moments that are kept.
        eps: added to the root of the second moment, after the bias correction.
        weight_decay: times the parameter, added to the gradient.

    >>> import jax.numpy as jnp
    >>> updates, _ = adam(0.1).update(jnp.ones(1), adam(0.1).init(jnp.ones(1)), jnp.ones(1))
    >>> round(float(updates[0]), 4)
    -0.1
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
        optax.scale_by_adam(*betas, eps),
        optax.scale_by_learning_rate(lr),
    )


def adamw(
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> optax.GradientTransformation:
    """torch.optim.AdamW (Loshchilov, Hutter 2017, arXiv 1711.05101); weight decay is decoupled.

    Args:
        lr: learning rate.
        betas: shares of the two moments that are kept.
        eps: added to the root of the second moment, after the bias correction.
        weight_decay: times the learning rate and the parameter, taken off the parameter.

    >>> import jax.numpy as jnp
    >>> updates, _ = adamw(0.1).update(jnp.ones(1), adamw(0.1).init(jnp.ones(1)), jnp.ones(1))
    >>> round(float(updates[0]), 4)
    -0.101
    """
    return optax.chain(
        optax.scale_by_adam(*betas, eps),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(lr),
    )


BY_NAME: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
}
