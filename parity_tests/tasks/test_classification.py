"""Cross-entropy and accuracy against torch, figures against what is counted by hand."""

import dataclasses

import numpy as np
import pytest

from flaxnets.tasks import classification, evaluate
from parity_tests.tasks.both import check_objective
from parity_tests.tasks.sequences import DATA, Sequences
from torch_ref.tasks import classification as reference


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("outputs", ["logits", "probabilities", "log_probabilities"])
def test_objective(outputs, smoothing):
    """Of logits, of probabilities, an exact zero among them, and of their logarithms."""
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal((6, 4)) * 3, rng.integers(0, 4, 6)
    labels[5] = -100
    if outputs != "logits":
        scores = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    if outputs == "probabilities":
        scores[0, labels[0]] = 0.0
    if outputs == "log_probabilities":
        scores = np.log(scores)
    check_objective(
        classification.objective(outputs, smoothing),
        reference.objective(outputs, smoothing),
        (lambda _: lambda x: x, lambda _: lambda x: x),
        scores,
        lambda x, array: (x, array(labels)),
    )


def test_labels():
    """Accuracy, that of the commonest label, and a line an example."""
    found = evaluate(Sequences(), lambda *call: np.array([[0.0, 1.0], [0.0, 1.0]]), DATA)
    assert found.figures == {"test_accuracy": 0.5, "test_accuracy_of_the_commonest_label": 0.5}
    assert found.examples == ("abc: yes (right)", "ba: yes (not no)")


def test_words_of_anybody():
    """A word that would move the terminal's cursor is shown and not obeyed."""
    odd = dataclasses.replace(
        DATA, words=(*DATA.words[:5], "\x1b[2J", *DATA.words[6:]), labels=("\r", "yes")
    )
    found = evaluate(Sequences(), lambda *call: np.eye(2), odd)
    assert found.examples == (r"\x1b[2Jbc: \r (not yes)", r"b\x1b[2J: yes (not \r)")


def test_labels_of_words():
    """What is behind the end counts nowhere."""
    labels = np.array([[1, 0, 1, -100], [1, 1, -100, -100]])
    chosen = dataclasses.replace(DATA, train_targets=labels, test_targets=labels)
    found = evaluate(Sequences(), lambda *call: np.eye(2)[np.ones((2, 4), int)], chosen)
    assert found.figures == {"test_accuracy": 0.8, "test_accuracy_of_the_commonest_label": 0.8}
    assert found.examples == ("a/yes b/yes(not no) c/yes", "b/yes a/yes")
