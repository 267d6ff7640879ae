"""What a network is trained for: `objective(model, batch) -> loss, metrics`.

Axes: b batch, k classes.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from torch import nn

Objective = Callable[[nn.Module, Any], tuple[torch.Tensor, dict[str, torch.Tensor]]]


def classification(outputs: str = "logits") -> Objective:
    """Mean cross-entropy of a batch (inputs, labels), with the accuracy as its metric.

    Args:
        outputs: what the network returns: "logits" or "probabilities".

    >>> loss, _ = classification()(lambda x: x, (torch.zeros(1, 4), torch.tensor([0])))
    >>> round(loss.item(), 4)
    1.3863
    """

    def objective(model, batch):
        inputs, labels = batch
        scores = model(inputs)
        if outputs == "probabilities":
            loss = F.nll_loss(scores.clamp(min=torch.finfo(scores.dtype).tiny).log(), labels)
        else:
            loss = F.cross_entropy(scores, labels)
        accuracy = (scores.argmax(-1) == labels).float().mean()
        return loss, {"accuracy": accuracy}

    return objective


BY_TASK = {"classification": classification}
