"""Labels of examples, or of the words of a sentence.

Axes: k classes.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxnets import layers
from flaxnets.data import Dataset
from flaxnets.layers.shape import lifted
from flaxnets.specs import Spec
from flaxnets.tasks import Call, Evaluation, Figure, axes, commonest, spread, verdict
from flaxnets.training.objective import Objective, apply, together

FIGURES: Mapping[str, Figure] = {"accuracy": Figure("max", share=True)}


def objective(outputs: str = "logits", label_smoothing: float = 0.0) -> Objective:
    """Mean cross-entropy of a batch (inputs, labels), with the accuracy as its metric.

    A label out of range makes the loss NaN inside `jax.jit`; one of -100 stays out of it.

    Args:
        outputs: what the network returns: "logits", "probabilities" or "log_probabilities".
        label_smoothing: the part of every target that is spread evenly over the classes.

    >>> loss, metrics = objective()(lambda x: x, (jnp.zeros((1, 4)), jnp.zeros(1, int)), None)
    >>> round(float(loss), 4), float(metrics["accuracy"])
    (1.3863, 1.0)
    """

    def objective(model, batch, rngs):
        inputs, labels = batch
        scores = apply(model, rngs, *together(inputs))
        logs = log_probabilities(scores) if outputs == "probabilities" else scores
        if outputs == "logits" or label_smoothing:  # which leaves normalised logarithms alone
            loss = layers.cross_entropy(logs, labels, label_smoothing=label_smoothing)
        else:
            loss = layers.nll_loss(logs, labels)
        return loss, {"accuracy": accuracy(scores, labels)}

    return objective


def objectives(spec: Spec, label_smoothing: float = 0.0) -> dict[str, Objective]:
    """The loss of a network; see `Task.objectives`."""
    return {"": objective(spec.outputs, label_smoothing)}


def log_probabilities(probabilities: jax.Array) -> jax.Array:
    """Logarithms of probabilities; below the smallest normal number they stay finite and flat.

    >>> bool(jnp.isfinite(log_probabilities(jnp.zeros(()))))
    True
    """
    return jnp.log(jnp.maximum(probabilities, jnp.finfo(probabilities.dtype).tiny))


def accuracy(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of rows (..., k) whose largest entry is at the label (...), if not at -100.

    >>> float(accuracy(jnp.eye(3), jnp.array([0, 0, -100])))
    0.5
    """
    right = first_largest(scores) == labels.astype(int)
    return jnp.sum(right, dtype=jnp.float32) / jnp.sum(labels != -100, dtype=jnp.float32)


def first_largest(scores: jax.Array) -> jax.Array:
    """`jnp.argmax` of the last axis, which takes 5 times as long on a CPU; of a NaN its length.

    >>> int(first_largest(jnp.array([1.0, 3.0, 3.0])))
    1
    """
    count = scores.shape[-1]
    is_largest = scores == scores.max(-1, keepdims=True)
    return jnp.where(is_largest, lifted(jnp.arange(count), scores.ndim), count).min(-1)


def evaluate(spec: Spec, call: Call, chosen: Dataset) -> Evaluation:
    """Accuracy beside that of the commonest label; see `Task.evaluate`."""
    outputs = call(chosen.test_inputs, axes(spec), None)
    truth, guesses = chosen.test_targets, outputs.argmax(-1)
    counted = truth != -100
    usual = commonest(chosen.train_targets[chosen.train_targets != -100])
    figures = {
        "test_accuracy": float(np.mean(guesses[counted] == truth[counted])),
        "test_accuracy_of_the_commonest_label": float(np.mean(truth[counted] == usual)),
    }
    examples = []
    for row in spread(len(truth)) if chosen.words else ():
        words = chosen.test_words(row)
        if truth.ndim == 1:
            answer = chosen.labels[guesses[row]]
            said = verdict(answer, chosen.labels[truth[row]])
            examples.append(f"{chosen.separator.join(words)}: {answer} ({said})")
            continue
        examples.append(
            " ".join(
                f"{word}/{chosen.labels[guess]}"
                + ("" if guess == label else f"(not {chosen.labels[label]})")
                for word, guess, label in zip(words, guesses[row], truth[row], strict=False)
            )
        )
    return Evaluation(figures=figures, outputs=outputs, examples=tuple(examples))


def pictures(spec: Spec, inputs: Any, targets: np.ndarray, found: Evaluation) -> dict[str, Any]:
    """Which label was taken for which; see `Task.pictures`."""
    from flaxnets.page.pictures import confusion

    counted = targets != -100
    guesses = found.outputs.argmax(-1)
    return {"confusion": confusion(targets[counted], guesses[counted], found.outputs.shape[-1])}
