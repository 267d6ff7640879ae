"""Images that cannot be told from the real ones (Goodfellow et al. 2014, arXiv 1406.2661)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxnets import layers
from flaxnets.data import Dataset
from flaxnets.specs import Spec
from flaxnets.tasks import GRID, Call, Evaluation, Figure
from flaxnets.training.objective import Objective, apply

# What the discriminator says of images; where it is lost, both are a half.
FIGURES: Mapping[str, Figure] = {"real": Figure(None), "fake": Figure(None)}


def discriminator() -> Objective:
    """First phase: real is 1, fake is 0.

    The generator is only looked at: its statistics stay for the second phase to change.
    """

    def objective(model, batch, rngs):
        images, _ = batch
        generator = nnx.merge(*nnx.split(model.generator), copy=True)
        noise = _noise(model, len(images), images.dtype, rngs)
        fake = jax.lax.stop_gradient(apply(generator, None, noise))
        on_real = apply(model.discriminator, None, 2 * images - 1)  # as the generator's tanh
        on_fake = apply(model.discriminator, None, fake)
        loss = layers.binary_cross_entropy(on_real, jnp.ones_like(on_real))
        loss += layers.binary_cross_entropy(on_fake, jnp.zeros_like(on_fake))
        return loss, {"real": on_real.mean(), "fake": on_fake.mean()}

    return objective


def generator() -> Objective:
    """Second phase: the same noise as in the first, to be taken for real."""

    def objective(model, batch, rngs):
        images, _ = batch
        noise = _noise(model, len(images), images.dtype, rngs)
        on_fake = apply(model.discriminator, None, apply(model.generator, None, noise))
        return layers.binary_cross_entropy(on_fake, jnp.ones_like(on_fake)), {}

    return objective


def _noise(model: Any, count: int, dtype: Any, rngs: nnx.Rngs) -> jax.Array:
    return jax.random.normal(rngs(), (count, 1, 1, model.noise_channels), dtype)


def objectives(spec: Spec) -> dict[str, Objective]:
    """The losses of the two parts; see `Task.objectives`."""
    return {"discriminator": discriminator(), "generator": generator()}


def evaluate(spec: Spec, call: Call, chosen: Dataset) -> Evaluation:
    """New images, and what the discriminator says of them and of real ones; see `Task.evaluate`."""
    rng = np.random.Generator(np.random.Philox(0))
    (noise,) = spec.inputs(GRID)
    samples = call(rng.standard_normal(noise.shape, np.float32), "bhwc", "generator")
    samples = (samples + 1) / 2
    images = np.asarray(chosen.test_inputs)[:GRID]
    real, fake = (call(2 * x - 1, "bhwc", "discriminator") for x in (images, samples))
    figures = {"test_real": float(real.mean()), "test_fake": float(fake.mean())}
    return Evaluation(figures=figures, outputs=real, samples=samples)


def pictures(spec: Spec, inputs: Any, targets: np.ndarray, found: Evaluation) -> dict[str, Any]:
    """New images; see `Task.pictures`."""
    from flaxnets.page.pictures import samples

    assert found.samples is not None  # as evaluated above
    return {"samples": samples(found.samples)}
