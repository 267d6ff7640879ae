"""Images that cannot be told from the real ones; see `flaxnets.tasks.gan`."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)

from flaxnets.specs import Spec
from torch_ref.training.objective import Objective


def discriminator() -> Objective:
    """First phase: real is 1, fake is 0.

    Statistics and random numbers of the generator stay as they were for the second phase.
    """

    def objective(model, batch):
        images, _ = batch
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            state = {k: v.clone() for k, v in model.generator.state_dict().items()}
            noise = _noise(model, images)
            fake = torch.func.functional_call(model.generator, state, (noise,))
        on_real = model.discriminator(2 * images - 1)
        on_fake = model.discriminator(fake)
        loss = F.binary_cross_entropy(on_real, torch.ones_like(on_real))
        loss = loss + F.binary_cross_entropy(on_fake, torch.zeros_like(on_fake))
        return loss, {"real": on_real.mean(), "fake": on_fake.mean()}

    return objective


def generator() -> Objective:
    """Second phase: the same noise as in the first, to be taken for real."""

    def objective(model, batch):
        images, _ = batch
        on_fake = model.discriminator(model.generator(_noise(model, images)))
        return F.binary_cross_entropy(on_fake, torch.ones_like(on_fake)), {}

    return objective


def _noise(model: Any, images: torch.Tensor) -> torch.Tensor:
    return torch.randn((len(images), model.noise_channels, 1, 1), dtype=images.dtype)


def objectives(spec: Spec) -> dict[str, Objective]:
    """The losses of the two parts, by the part of the model that each moves."""
    return {"discriminator": discriminator(), "generator": generator()}
