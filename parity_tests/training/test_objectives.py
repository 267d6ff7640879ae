"""Objectives against their torch twins: loss, metrics and gradient in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from flaxnets.parity.compare import relative_error
from flaxnets.training import objectives
from torch_ref.training import objectives as reference


@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_classification(outputs):
    """Cross-entropy of logits and of probabilities, an exact zero among the latter."""
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal((6, 4)) * 3, rng.integers(0, 4, 6)
    if outputs == "probabilities":
        scores = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        scores[0, labels[0]] = 0.0
    theirs = torch.tensor(scores, requires_grad=True)
    expected, their_metrics = reference.classification(outputs)(
        lambda x: x, (theirs, torch.tensor(labels))
    )
    expected.backward()
    with jax.enable_x64(True):
        objective = objectives.classification(outputs)
        grad, (loss, metrics) = jax.grad(
            lambda x: (lambda pair: (pair[0], pair))(
                objective(lambda x: x, (x, jnp.asarray(labels)), None)
            ),
            has_aux=True,
        )(jnp.asarray(scores))
    assert relative_error(expected.detach().numpy(), np.asarray(loss)) < 1e-14
    assert relative_error(theirs.grad.numpy(), np.asarray(grad)) < 1e-14
    assert float(metrics["accuracy"]) == their_metrics["accuracy"].item()


@pytest.mark.parametrize("task", ["classification", "regression", "reconstruction", "vae", "gan"])
def test_same_phases(task):
    """Both sides train the same parts of a model in the same order."""
    assert list(objectives.phases(task)) == list(reference.phases(task))
