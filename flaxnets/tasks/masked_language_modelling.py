"""Words that are hidden, guessed from those around them (Devlin et al. 2018, arXiv 1810.04805)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxnets import layers
from flaxnets.data import Dataset
from flaxnets.specs import MASK, Spec
from flaxnets.tasks import Call, Evaluation, Figure, axes, spread, verdict, word
from flaxnets.tasks.classification import first_largest
from flaxnets.training.objective import Objective, apply

FIGURES: Mapping[str, Figure] = {
    "perplexity": Figure("min"),
    "accuracy": Figure("max", share=True),
}
HIDDEN = 0.15  # of the words
PASSAGES = 64  # that a network is tested on


def objective() -> Objective:
    """Hidden words of a batch (tokens and attention mask, anything), guessed from the others.

    Of 15 % of the tokens, drawn for each batch, 80 % become MASK, 10 % any token and 10 % stay
    as they are; the loss is the mean over them.
    """

    def objective(model, batch, rngs):
        (tokens, present), _ = batch
        chosen = jax.random.uniform(rngs(), tokens.shape, jnp.float32)
        other = jax.random.uniform(rngs(), tokens.shape, jnp.float32)
        other = jnp.floor(other * model.vocab_size).astype(tokens.dtype)
        hidden = (chosen < 0.15) & (tokens > MASK)
        seen = jnp.where(chosen < 0.12, MASK, jnp.where(chosen < 0.135, other, tokens))
        wanted = jnp.where(hidden, tokens, -100)
        scores = apply(model, rngs, jnp.where(hidden, seen, tokens), present)
        count = jnp.maximum(hidden.sum(), 1)  # a small batch may have none
        loss = layers.cross_entropy(scores, wanted, reduction="sum")
        right = (first_largest(scores) == wanted.astype(int)).sum(dtype=jnp.float32)
        accuracy = right / count.astype(right.dtype)
        return loss / count.astype(loss.dtype), {"accuracy": accuracy}

    return objective


def objectives(spec: Spec) -> dict[str, Objective]:
    """The loss of a network; see `Task.objectives`."""
    return {"": objective()}


def evaluate(spec: Spec, call: Call, chosen: Dataset) -> Evaluation:
    """Hidden words guessed, beside what counting words reaches; see `Task.evaluate`."""
    tokens, present = (part[:PASSAGES] for part in chosen.test_inputs)
    rng = np.random.Generator(np.random.Philox(0))
    hidden = (rng.random(tokens.shape) < HIDDEN) & (tokens > MASK)
    scores = call((np.where(hidden, MASK, tokens).astype(tokens.dtype), present), axes(spec), None)
    truth = tokens[hidden]
    logits = scores[hidden].astype(np.float64)
    logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    seen = chosen.train_inputs[0]
    counts = 1 + np.bincount(seen[seen > MASK], minlength=logits.shape[-1])
    figures = {
        "test_accuracy": float(np.mean(logits.argmax(-1) == truth)),
        "test_accuracy_of_the_commonest_word": float(np.mean(truth == counts.argmax())),
        "test_perplexity": float(np.exp(-np.mean(logs[np.arange(len(truth)), truth]))),
        "test_perplexity_of_word_counts": float(
            np.exp(-np.mean(np.log(counts[truth] / counts.sum())))
        ),
    }
    guesses = scores.argmax(-1)
    examples = tuple(
        chosen.separator.join(
            f"[{guess} ({verdict(guess, right)})]" if covered else right
            for right, guess, covered in zip(
                chosen.test_words(row),
                [word(chosen.words, token) for token in guesses[row]],
                hidden[row],
                strict=False,
            )
        )
        for row in spread(len(tokens))
    )
    return Evaluation(figures=figures, outputs=scores, examples=examples)


def pictures(spec: Spec, inputs: Any, targets: np.ndarray, found: Evaluation) -> dict[str, Any]:
    """None: answers are words; see `Task.pictures`."""
    return {}
