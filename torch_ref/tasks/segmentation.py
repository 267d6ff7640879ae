"""A label for every pixel; see `flaxnets.tasks.segmentation`.

Axes: b batch, h w pixels, k classes.
"""

import torch.nn.functional as F  # noqa: N812 (torch's own custom)

from flaxnets.specs import Spec
from torch_ref.training.objective import Objective


def objective(label_smoothing: float = 0.0) -> Objective:
    """Mean cross-entropy over the pixels of a batch (images, labels), with the accuracy beside it.

    Labels are (b h w), the network's logits (b k h w); a pixel with label -100 counts nowhere.

    Args:
        label_smoothing: the part of every target that is spread evenly over the classes.
    """

    def objective(model, batch):
        images, labels = batch
        scores = model(images)
        loss = F.cross_entropy(scores, labels, label_smoothing=label_smoothing)
        right = (scores.argmax(1) == labels).sum().float()
        return loss, {"accuracy": right / (labels != -100).sum()}

    return objective


def objectives(spec: Spec, label_smoothing: float = 0.0) -> dict[str, Objective]:
    """The loss of a network, by the part of the model that it moves."""
    return {"": objective(label_smoothing)}
