"""One sequence of tokens out of another."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from flaxnets import layers
from flaxnets.data import Dataset
from flaxnets.specs import END, PAD, Spec
from flaxnets.tasks import Call, Evaluation, Figure, axes, commonest, spread, verdict, word
from flaxnets.tasks.classification import accuracy
from flaxnets.training.objective import Objective, apply, together

FIGURES: Mapping[str, Figure] = {"exact_match": Figure("max", share=True)}


def objective(label_smoothing: float = 0.0) -> Objective:
    """Cross-entropy of a batch (source, target), every token guessed from those before it.

    Targets (b, t) begin with START, end with END and are followed by PAD, which does not count;
    the network is shown the right ones up to the token that it guesses (teacher forcing).

    Args:
        label_smoothing: the part of every target that is spread evenly over the tokens.
    """

    def objective(model, batch, rngs):
        source, target = batch
        wanted = jnp.where(target[:, 1:] == PAD, -100, target[:, 1:])
        scores = apply(model, rngs, *together(source), target[:, :-1])
        loss = layers.cross_entropy(scores, wanted, label_smoothing=label_smoothing)
        return loss, {"accuracy": accuracy(scores, wanted)}

    return objective


def objectives(spec: Spec, label_smoothing: float = 0.0) -> dict[str, Objective]:
    """The loss of a network; see `Task.objectives`."""
    return {"": objective(label_smoothing)}


def evaluate(spec: Spec, call: Call, chosen: Dataset) -> Evaluation:
    """Answers that are right from beginning to end, decoded greedily; see `Task.evaluate`."""

    def text(tokens: np.ndarray) -> str:
        ends = np.flatnonzero((tokens == END) | (tokens == PAD))
        known = tokens[: ends[0] if len(ends) else None]
        return "".join(word(chosen.labels, token) for token in known)

    outputs = call(chosen.test_inputs, axes(spec), "greedy")
    truth = [text(tokens[1:]) for tokens in chosen.test_targets]  # behind START
    guesses = [text(tokens) for tokens in outputs]
    usual = commonest(np.array([text(tokens[1:]) for tokens in chosen.train_targets]))
    figures = {
        "test_exact_match": float(np.mean([a == b for a, b in zip(guesses, truth, strict=True)])),
        "test_exact_match_of_the_commonest": float(np.mean([a == usual for a in truth])),
    }
    examples = tuple(
        f"{chosen.separator.join(chosen.test_words(row))} -> {guesses[row]} "
        f"({verdict(guesses[row], truth[row])})"
        for row in spread(len(truth))
    )
    return Evaluation(figures=figures, outputs=outputs, examples=examples)


def pictures(spec: Spec, inputs: Any, targets: np.ndarray, found: Evaluation) -> dict[str, Any]:
    """None: answers are words; see `Task.pictures`."""
    return {}
