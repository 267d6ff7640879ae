"""Cross-entropy of target tokens against torch, and answers against what is right."""

import dataclasses
from typing import ClassVar

import numpy as np
import pytest

from flaxnets.specs import END, PAD, START
from flaxnets.tasks import evaluate, translation
from parity_tests.tasks.both import check_objective
from parity_tests.tasks.sequences import DATA, WORDS, Sequences
from torch_ref.tasks import translation as reference


class Translator(Sequences):
    task: ClassVar[str] = "translation"


TARGETS = np.array([[START, 5, 6, END, PAD], [START, 7, END, PAD, PAD]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_objective(smoothing):
    """Tokens are guessed from those before them; what is behind the end does not count."""
    scores = np.random.default_rng(0).standard_normal((2, 4, 8))
    seen = []

    def model(x):
        return lambda source, target: seen.append(np.asarray(target)) or x

    check_objective(
        translation.objective(smoothing),
        reference.objective(smoothing),
        (model, model),
        scores,
        lambda x, array: (array(np.ones((2, 3))), array(TARGETS)),
    )
    for target in seen:
        np.testing.assert_array_equal(target, TARGETS[:, :-1])


def test_figures():
    """A translation counts if it is right from beginning to end, whatever is behind that."""
    chosen = dataclasses.replace(DATA, train_targets=TARGETS, test_targets=TARGETS, labels=WORDS)
    answers = np.array([[5, 6, END, 7, 7], [7, 7, END, PAD, PAD]])
    calls = []

    def call(inputs, axes, part):
        calls.append((axes, part))
        return answers

    found = evaluate(Translator(), call, chosen)
    assert calls == [(("bt", "b"), "greedy")]
    assert found.figures["test_exact_match"] == 0.5
    assert found.figures["test_exact_match_of_the_commonest"] == 0.5
    assert found.examples == ("abc -> ab (right)", "ba -> cc (not c)")
