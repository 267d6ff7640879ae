"""The input itself, through a code that can be drawn from; see `flaxnets.tasks.vae`."""

import torch.nn.functional as F  # noqa: N812 (torch's own custom)

from flaxnets.specs import Spec
from torch_ref.layers.loss import vae_loss
from torch_ref.training.objective import Objective


def objective() -> Objective:
    """The variational bound of a batch of images (Kingma, Welling 2013, arXiv 1312.6114)."""

    def objective(model, batch):
        images, _ = batch
        outputs, mean, logvar = model(images)

        def summed(outputs, images):
            return F.binary_cross_entropy(outputs, images, reduction="sum") / len(images)

        bound = vae_loss(outputs, images, mean, logvar, summed)
        return bound, {"divergence": bound - summed(outputs, images)}

    return objective


def objectives(spec: Spec) -> dict[str, Objective]:
    """The loss of a network, by the part of the model that it moves."""
    return {"": objective()}
