"""Labels of examples, or of the words of a sentence; see `flaxnets.tasks.classification`.

Axes: k classes.
"""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)

from flaxnets.specs import Spec
from torch_ref.training.objective import Objective, together


def objective(outputs: str = "logits", label_smoothing: float = 0.0) -> Objective:
    """Mean cross-entropy of a batch (inputs, labels), with the accuracy as its metric.

    Args:
        outputs: what the network returns: "logits", "probabilities" or "log_probabilities".
        label_smoothing: the part of every target that is spread evenly over the classes.

    >>> loss, _ = objective()(lambda x: x, (torch.zeros(1, 4), torch.tensor([0])))
    >>> round(loss.item(), 4)
    1.3863
    """

    def objective(model, batch):
        inputs, labels = batch
        scores = model(*together(inputs))
        logs = scores
        if outputs == "probabilities":
            logs = scores.clamp(min=torch.finfo(scores.dtype).tiny).log()
        if outputs == "logits" or label_smoothing:  # which leaves normalised logarithms alone
            loss = F.cross_entropy(logs.movedim(-1, 1), labels, label_smoothing=label_smoothing)
        else:
            loss = F.nll_loss(logs.movedim(-1, 1), labels)
        return loss, {"accuracy": accuracy(scores, labels)}

    return objective


def objectives(spec: Spec, label_smoothing: float = 0.0) -> dict[str, Objective]:
    """The loss of a network, by the part of the model that it moves."""
    return {"": objective(spec.outputs, label_smoothing)}


def accuracy(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The share of rows (..., k) whose largest entry is at the label (...), if not at -100."""
    return (scores.argmax(-1) == labels).sum().float() / (labels != -100).sum()
