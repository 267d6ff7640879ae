"""Words that are hidden: which, what for, and what a guess is worth."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flaxnets.parity.compare import relative_error
from flaxnets.specs import MASK, Input
from flaxnets.tasks import evaluate, masked_language_modelling
from parity_tests.tasks.sequences import DATA, Sequences
from torch_ref import random
from torch_ref.tasks import masked_language_modelling as reference


class Language(Sequences):
    task: ClassVar[str] = "masked_language_modelling"

    def inputs(self, batch):
        """Tokens, and ones where there are tokens."""
        return (
            Input(name="tokens", shape=(batch, 4), axes="bt", high=8),
            Input(name="present", shape=(batch, 4), axes="bt", high=2),
        )


class _Scores:
    """Stands for a model: what it was shown decides what it says."""

    vocab_size = 8

    def __init__(self, one_hot):
        self.one_hot, self.seen = one_hot, None

    def __call__(self, tokens, present):
        self.seen = np.asarray(tokens)
        return self.one_hot(tokens)


def test_objective():
    """With the same random numbers both hide the same words behind the same."""
    tokens = np.random.default_rng(0).integers(MASK + 1, 8, (16, 32))
    present = np.ones_like(tokens)
    table = np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32)
    ours = _Scores(lambda tokens: jnp.asarray(table)[tokens])
    theirs = _Scores(lambda tokens: torch.tensor(table)[tokens.long()])
    loss, metrics = masked_language_modelling.objective()(
        ours, ((jnp.asarray(tokens, jnp.int32), jnp.asarray(present)), None), nnx.Rngs(5)
    )
    with random.replay(5, [tokens.shape, tokens.shape]):
        truth, told = reference.objective()(
            theirs, ((torch.tensor(tokens), torch.tensor(present)), None)
        )
    np.testing.assert_array_equal(ours.seen, theirs.seen)
    assert 0.05 < np.mean(ours.seen == MASK) < 0.2
    assert 0 < np.mean((ours.seen != MASK) & (ours.seen != tokens)) < 0.05
    assert relative_error(truth.numpy(), np.asarray(loss)) < 1e-6
    assert float(metrics["accuracy"]) == pytest.approx(told["accuracy"].item())


def test_figures():
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
