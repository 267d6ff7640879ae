"""The variational bound against torch; figures and images of a network that is drawn from."""

import jax.numpy as jnp
import numpy as np
import torch

from flaxnets import data, specs
from flaxnets.tasks import GRID, evaluate, vae
from parity_tests.tasks.both import check_objective
from torch_ref.tasks import vae as reference


def _coded(exp):
    """An image, a mean and a log-variance from one array."""
    return lambda x: lambda _: (1 / (1 + exp(-x)), 0.5 * x[:, :2], 0.1 * x[:, 1:3])


def test_objective():
    """The images are targets of a cross-entropy: only the outputs move."""
    images = np.random.default_rng(1).random((6, 4))
    check_objective(
        vae.objective(),
        reference.objective(),
        (_coded(jnp.exp), _coded(torch.exp)),
        images,
        lambda x, array: (array(images), None),
    )


def test_figures():
    """As of a reconstruction, with images from codes that are the same in every run."""
    spec, calls = specs.make("vae", in_shape=(1, 8, 8)), []
    chosen = data.fit(data.load("digits"), spec.examples(1), spec.targets(1))

    def call(inputs, axes, part):
        calls.append((axes, part, np.asarray(inputs)))
        return np.asarray(inputs) if part else np.zeros_like(inputs)

    found = evaluate(spec, call, chosen)
    again = evaluate(spec, call, chosen)
    images = np.asarray(chosen.test_inputs)
    assert found.figures["test_mse"] == np.mean(images**2, dtype=np.float32)
    assert [made[:2] for made in calls[:2]] == [("bhwc", None), ("bf", "decode")]
    assert len(found.samples) == GRID
    np.testing.assert_array_equal(found.samples, again.samples)
