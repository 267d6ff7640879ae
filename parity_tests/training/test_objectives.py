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


def _coded(exp):
    """A model for the variational bound: an image, a mean and a log-variance from one array."""
    return lambda x: (1 / (1 + exp(-x)), 0.5 * x[:, :2], 0.1 * x[:, 1:3])


@pytest.mark.parametrize(
    ("task", "ours", "theirs"),
    [
        ("regression", lambda x: 2 * x, lambda x: 2 * x),
        ("reconstruction", lambda x: x**2, lambda x: x**2),
        ("vae", _coded(jnp.exp), _coded(torch.exp)),
    ],
)
def test_other_tasks(task, ours, theirs):
    """Loss, metrics and gradient of every objective on arrays agree in float64."""
    rng = np.random.default_rng(1)
    inputs, targets = rng.random((2, 6, 4))
    x = torch.tensor(inputs, requires_grad=True)
    (objective,) = reference.phases(task).values()
    if task == "vae":  # the images are targets of a cross-entropy: only the outputs move
        expected, their_metrics = objective(lambda _: theirs(x), (torch.tensor(inputs), None))
    else:
        expected, their_metrics = objective(theirs, (x, torch.tensor(targets)))
    expected.backward()
    with jax.enable_x64(True):
        (objective,) = objectives.phases(task).values()
        images, wanted = jnp.asarray(inputs), jnp.asarray(targets)

        def loss_of(x):
            if task == "vae":
                return objective(lambda _: ours(x), (images, None), None)
            return objective(ours, (x, wanted), None)

        (loss, metrics), grad = jax.value_and_grad(loss_of, has_aux=True)(images)
    assert relative_error(expected.detach().numpy(), np.asarray(loss)) < 1e-13
    assert relative_error(x.grad.numpy(), np.asarray(grad)) < 1e-13
    assert metrics.keys() == their_metrics.keys()
    for name, value in metrics.items():
        assert float(value) == pytest.approx(their_metrics[name].item(), rel=1e-12)


@pytest.mark.parametrize("task", ["classification", "regression", "reconstruction", "vae", "gan"])
def test_same_phases(task):
    """Both sides train the same parts of a model in the same order."""
    assert list(objectives.phases(task)) == list(reference.phases(task))
