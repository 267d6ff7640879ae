"""The input itself, through a code that is a normal distribution and can be drawn from."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from flaxnets import layers
from flaxnets.data import Dataset
from flaxnets.specs import Spec
from flaxnets.tasks import GRID, Call, Evaluation, Figure, reconstruction
from flaxnets.training.objective import Objective, apply

FIGURES: Mapping[str, Figure] = reconstruction.FIGURES


def objective() -> Objective:
    """The variational bound of a batch of images (Kingma, Welling 2013, arXiv 1312.6114).

    Binary cross-entropy summed over each image, plus the divergence of the code from a normal
    distribution; the model returns image, mean and logarithm of the variance of the code.
    """

    def objective(model, batch, rngs):
        images, _ = batch
        outputs, mean, logvar = apply(model, rngs, images)

        def summed(outputs, images):
            return layers.binary_cross_entropy(outputs, images, reduction="sum") / len(images)

        bound = layers.vae_loss(outputs, images, mean, logvar, summed)
        return bound, {"divergence": bound - summed(outputs, images)}

    return objective


def objectives(spec: Spec) -> dict[str, Objective]:
    """The loss of a network; see `Task.objectives`."""
    return {"": objective()}


def evaluate(spec: Spec, call: Call, chosen: Dataset) -> Evaluation:
    """As of a reconstruction, and images from codes that are drawn; see `Task.evaluate`."""
    found = reconstruction.evaluate(spec, call, chosen)
    rng = np.random.Generator(np.random.Philox(0))
    codes = rng.standard_normal((GRID, spec.n_latent), np.float32)  # type: ignore[attr-defined]
    return replace(found, samples=call(codes, "bf", "decode"))


def pictures(spec: Spec, inputs: Any, targets: np.ndarray, found: Evaluation) -> dict[str, Any]:
    """Images beside what became of them, and new ones; see `Task.pictures`."""
    from flaxnets.page.pictures import samples

    assert found.samples is not None  # as evaluated above
    drawn = reconstruction.pictures(spec, inputs, targets, found)
    return {**drawn, "samples": samples(found.samples)}
