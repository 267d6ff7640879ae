"""Clipping of gradients, as torch.nn.utils does it: to be chained before an optimizer."""

import jax
import jax.numpy as jnp
import optax


def clip_grad_norm(max_norm: float, norm_type: float = 2.0) -> optax.GradientTransformation:
    """torch.nn.utils.clip_grad_norm_ (Pascanu et al. 2012, arXiv 1211.5063).

    All gradients are multiplied by max_norm / (norm + 1e-6) or by 1, whichever is smaller.

    Args:
        max_norm: of all gradients together.
        norm_type: the p of the p-norm; infinity is the largest magnitude.

    Raises:
        ValueError: a negative max_norm.

    >>> from flaxnets.training import optimizers
    >>> optimizer = optax.chain(clip_grad_norm(0.5), optimizers.sgd(1.0))
    >>> grads = [jnp.array([3.0]), jnp.array([4.0])]
    >>> updates, _ = optimizer.update(grads, optimizer.init(grads))
    >>> [round(float(update[0]), 4) for update in updates]
    [-0.3, -0.4]
    """
    if not max_norm >= 0:
        raise ValueError(f"max_norm {max_norm} is not a number of 0 or more")

    def clip(grads, params=None):
        norms = [jnp.linalg.norm(grad.ravel(), norm_type) for grad in jax.tree.leaves(grads)]
        total = jnp.linalg.norm(jnp.stack(norms), norm_type)
        share = jnp.minimum(max_norm / (total + 1e-6), 1.0)
        return jax.tree.map(lambda grad: (grad * share).astype(grad.dtype), grads)

    return optax.stateless(clip)


def clip_grad_value(clip_value: float) -> optax.GradientTransformation:
    """torch.nn.utils.clip_grad_value_: every entry ends between -clip_value and clip_value.

    Args:
        clip_value: the largest magnitude that is left.

    Raises:
        ValueError: a negative clip_value.

    >>> updates, _ = clip_grad_value(0.5).update([jnp.array([3.0, -0.2])], optax.EmptyState())
    >>> [round(float(entry), 4) for entry in updates[0]]
    [0.5, -0.2]
    """
    if not clip_value >= 0:
        raise ValueError(f"clip_value {clip_value} is not a number of 0 or more")
    return optax.stateless_with_tree_map(
        lambda grad, param: jnp.clip(grad, -clip_value, clip_value)
    )
