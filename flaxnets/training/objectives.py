"""What a network is trained for: `objective(model, batch, rngs) -> loss, metrics`.

Axes: b batch, k classes.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets import layers

Objective = Callable[[nnx.Module, Any, nnx.Rngs], tuple[jax.Array, dict[str, jax.Array]]]


def classification(outputs: str = "logits") -> Objective:
    """Mean cross-entropy of a batch (inputs, labels), with the accuracy as its metric.

    A label out of range makes the loss NaN inside `jax.jit`; one of -100 stays out of it.

    Args:
        outputs: what the network returns: "logits" or "probabilities".

    >>> loss, metrics = classification()(lambda x: x, (jnp.zeros((1, 4)), jnp.zeros(1, int)), None)
    >>> round(float(loss), 4), float(metrics["accuracy"])
    (1.3863, 1.0)
    """

    def objective(model, batch, rngs):
        inputs, labels = batch
        scores = apply(model, rngs, inputs)
        if outputs == "probabilities":
            loss = layers.nll_loss(log_probabilities(scores), labels)
        else:
            loss = layers.cross_entropy(scores, labels)
        return loss, {"accuracy": accuracy(scores, labels)}

    return objective


def apply(model: Any, rngs: nnx.Rngs | None, *inputs: Any) -> Any:
    """The outputs of a model, which gets `rngs` if it is one that takes them.

    >>> apply(lambda x: x + 1, nnx.Rngs(0), 1)
    2
    """
    call = model.__call__ if isinstance(model, nnx.Module) else model
    if "rngs" in inspect.signature(call).parameters:
        return model(*inputs, rngs=rngs)
    return model(*inputs)


def log_probabilities(probabilities: jax.Array) -> jax.Array:
    """Logarithms of probabilities; below the smallest normal number they stay finite and flat.

    >>> bool(jnp.isfinite(log_probabilities(jnp.zeros(()))))
    True
    """
    return jnp.log(jnp.maximum(probabilities, jnp.finfo(probabilities.dtype).tiny))


def accuracy(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of rows (b, k) whose largest entry is at the label (b,).

    >>> float(accuracy(jnp.eye(2), jnp.array([0, 0])))
    0.5
    """
    return jnp.mean(jnp.argmax(scores, axis=-1) == labels, dtype=jnp.float32)


BY_TASK = {"classification": classification}
