"""The error against torch, with and without noise, and beside that of the mean."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from flaxnets.parity.compare import relative_error
from flaxnets.tasks import evaluate, reconstruction
from parity_tests.tasks.both import check_objective
from parity_tests.tasks.sequences import DATA, Sequences
from torch_ref import random
from torch_ref.tasks import reconstruction as reference

INPUTS = np.random.default_rng(1).random((6, 4))


class Copier(Sequences):
    task: ClassVar[str] = "reconstruction"


def test_objective():
    """Mean square error of what comes out."""
    check_objective(
        reconstruction.objective(),
        reference.objective(),
        (lambda _: lambda x: x**2,) * 2,
        INPUTS,
        lambda x, array: (x, None),
    )


def test_noise():
    """Both add the same noise to what the network sees, and none to what it is compared with."""
    inputs = INPUTS.astype(np.float32)
    loss, _ = reconstruction.objective(0.5)(lambda x: x, (jnp.asarray(inputs), None), nnx.Rngs(3))
    with random.replay(3, [inputs.shape]):
        truth, _ = reference.objective(0.5)(lambda x: x, (torch.tensor(inputs), None))
    assert 0.1 < truth < 0.5
    assert relative_error(truth.numpy(), np.asarray(loss)) < 1e-6


def test_figures():
    """The trivial guess is the mean of the examples."""
    inputs = np.array([[0.0, 0.0], [2.0, 0.0]])
    chosen = dataclasses.replace(DATA, train_inputs=inputs, test_inputs=inputs)
    found = evaluate(Copier(), lambda *call: inputs + 1, chosen)
    assert found.figures == {"test_mse": 1, "test_mse_of_the_mean": 0.5}
