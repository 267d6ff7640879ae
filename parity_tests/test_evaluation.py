"""Figures against what is counted by hand, and the answers in words."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from flaxnets.data import Dataset
from flaxnets.evaluation import evaluate
from flaxnets.specs import END, MASK, PAD, START, Input, Spec

WORDS = ("", "^", "$", "?", "_", "a", "b", "c")


@dataclass(frozen=True, kw_only=True)
class Sequences(Spec):
    """Stands for any network that reads."""

    task: ClassVar[str] = "classification"
    data: ClassVar[str] = "none"

    def inputs(self, batch):
        """Tokens and their lengths, or ones where there are tokens."""
        second = "bt" if self.task == "masked_language_modelling" else "b"
        return (
            Input(name="tokens", shape=(batch, 4), axes="bt", high=8),
            Input(name="second", shape=(batch, 4)[: len(second)], axes=second, high=5),
        )


class Translator(Sequences):
    task: ClassVar[str] = "translation"


class Language(Sequences):
    task: ClassVar[str] = "masked_language_modelling"


TOKENS = np.array([[5, 6, 7, 0], [6, 5, 0, 0]], np.int32)
LENGTHS = np.array([3, 2], np.int32)
DATA = Dataset(
    "letters",
    (TOKENS, LENGTHS),
    np.array([1, 1]),
    (TOKENS, LENGTHS),
    np.array([1, 0]),
    num_classes=2,
    words=WORDS,
    labels=("no", "yes"),
)


def test_labels():
    """Accuracy, that of the commonest label, and a line an example."""
    found = evaluate(Sequences(), lambda *call: np.array([[0.0, 1.0], [0.0, 1.0]]), DATA)
    assert found.figures == {"test_accuracy": 0.5, "test_accuracy_of_the_commonest_label": 0.5}
    assert found.examples == ("abc: yes (right)", "ba: yes (not no)")


def test_words_of_anybody():
    """A word that would move the terminal's cursor is shown and not obeyed."""
    odd = dataclasses.replace(DATA, words=(*WORDS[:5], "\x1b[2J", *WORDS[6:]), labels=("\r", "yes"))
    found = evaluate(Sequences(), lambda *call: np.eye(2), odd)
    assert found.examples == (r"\x1b[2Jbc: \r (not yes)", r"b\x1b[2J: yes (not \r)")


def test_labels_of_words():
    """What is behind the end counts nowhere."""
    labels = np.array([[1, 0, 1, -100], [1, 1, -100, -100]])
    chosen = dataclasses.replace(DATA, train_targets=labels, test_targets=labels)
    found = evaluate(Sequences(), lambda *call: np.eye(2)[np.ones((2, 4), int)], chosen)
    assert found.figures == {"test_accuracy": 0.8, "test_accuracy_of_the_commonest_label": 0.8}
    assert found.examples == ("a/yes b/yes(not no) c/yes", "b/yes a/yes")


def test_translation():
    """A translation counts if it is right from beginning to end, whatever is behind that."""
    targets = np.array([[START, 5, 6, END, PAD], [START, 7, END, PAD, PAD]])
    chosen = dataclasses.replace(DATA, train_targets=targets, test_targets=targets, labels=WORDS)
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


def test_language():
    """One who knows the text has perplexity 1, one who knows nothing as many as there are words."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(MASK + 1, 8, (20, 4)).astype(np.int32)
    present = np.ones_like(tokens)
    chosen = dataclasses.replace(
        DATA, train_inputs=(tokens, present), test_inputs=(tokens, present)
    )
    knowing = evaluate(Language(), lambda *call: 1e3 * np.eye(8)[tokens], chosen)
    assert knowing.figures["test_accuracy"] == 1
    assert knowing.figures["test_perplexity"] == pytest.approx(1)
    assert 0.1 < knowing.figures["test_accuracy_of_the_commonest_word"] < 0.6
    guessing = evaluate(Language(), lambda inputs, *call: np.zeros((*inputs[0].shape, 8)), chosen)
    assert guessing.figures["test_perplexity"] == pytest.approx(8)
    assert 2.9 < guessing.figures["test_perplexity_of_word_counts"] < 8
    assert "[a (right)]" in " ".join(knowing.examples)


def test_forecast():
    """The trivial forecast of a series is its last value."""
    inputs = np.arange(12.0).reshape(2, 3, 2)
    targets = np.array([[6.0], [13.0]])
    chosen = dataclasses.replace(
        DATA, train_inputs=inputs, test_inputs=inputs, test_targets=targets, num_classes=None
    )

    @dataclass(frozen=True, kw_only=True)
    class Forecaster(Sequences):
        task: ClassVar[str] = "regression"

    found = evaluate(Forecaster(), lambda *call: targets, chosen)
    assert found.figures["test_mse"] == 0
    assert found.figures["test_mse_of_the_last_value"] == (1 + 4) / 2
