"""One sequence of tokens out of another; see `flaxnets.tasks.translation`."""

import torch.nn.functional as F  # noqa: N812 (torch's own custom)

from flaxnets.specs import PAD, Spec
from torch_ref.tasks.classification import accuracy
from torch_ref.training.objective import Objective, together


def objective(label_smoothing: float = 0.0) -> Objective:
    """Cross-entropy of target tokens, each guessed from those before it (teacher forcing).

    Args:
        label_smoothing: the part of every target that is spread evenly over the tokens.
    """

    def objective(model, batch):
        source, target = batch
        wanted = target[:, 1:].masked_fill(target[:, 1:] == PAD, -100)
        scores = model(*together(source), target[:, :-1])
        loss = F.cross_entropy(scores.movedim(-1, 1), wanted, label_smoothing=label_smoothing)
        return loss, {"accuracy": accuracy(scores, wanted)}

    return objective


def objectives(spec: Spec, label_smoothing: float = 0.0) -> dict[str, Objective]:
    """The loss of a network, by the part of the model that it moves."""
    return {"": objective(label_smoothing)}
