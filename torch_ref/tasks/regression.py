"""Numbers: of an example, or what comes next in a series; see `flaxnets.tasks.regression`."""

import torch.nn.functional as F  # noqa: N812 (torch's own custom)

from flaxnets.specs import Spec
from torch_ref.training.objective import Objective, together


def objective() -> Objective:
    """Mean square error of a batch (inputs, targets), with the mean absolute error beside it."""

    def objective(model, batch):
        inputs, targets = batch
        outputs = model(*together(inputs))
        return F.mse_loss(outputs, targets), {"mae": F.l1_loss(outputs, targets)}

    return objective


def objectives(spec: Spec) -> dict[str, Objective]:
    """The loss of a network, by the part of the model that it moves."""
    return {"": objective()}
