"""The input itself, perhaps out of noise; see `flaxnets.tasks.reconstruction`."""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)

from flaxnets.specs import Spec
from torch_ref.training.objective import Objective


def objective(noise: float = 0.0) -> Objective:
    """Mean square error between the inputs of a batch (inputs, anything) and the outputs.

    Args:
        noise: standard deviation of normal noise that is added to what the network sees.
    """

    def objective(model, batch):
        inputs, _ = batch
        seen = inputs + noise * torch.randn_like(inputs) if noise else inputs
        return F.mse_loss(model(seen), inputs), {}

    return objective


def objectives(spec: Spec, noise: float = 0.0) -> dict[str, Objective]:
    """The loss of a network, by the part of the model that it moves."""
    return {"": objective(noise)}
