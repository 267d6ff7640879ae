"""A label for every pixel.

Axes: b batch, h w pixels, c channels, k classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flaxnets.data import Dataset
from flaxnets.specs import Spec
from flaxnets.tasks import Call, Evaluation, Figure, axes, classification, commonest
from flaxnets.training.objective import Objective

FIGURES: Mapping[str, Figure] = {
    "mean_iou": Figure("max", share=True),
    "accuracy": Figure("max", share=True),
}


def objective(label_smoothing: float = 0.0) -> Objective:
    """Mean cross-entropy over the pixels of a batch (images, labels), with the accuracy beside it.

    Labels are (b h w), the network's logits (b h w k); a pixel with label -100 counts nowhere.

    Args:
        label_smoothing: the part of every target that is spread evenly over the classes.
    """
    return classification.objective("logits", label_smoothing)


def objectives(spec: Spec, label_smoothing: float = 0.0) -> dict[str, Objective]:
    """The loss of a network; see `Task.objectives`."""
    return {"": objective(label_smoothing)}


def evaluate(spec: Spec, call: Call, chosen: Dataset) -> Evaluation:
    """Overlap and accuracy beside those of the commonest label; see `Task.evaluate`."""
    outputs = call(chosen.test_inputs, axes(spec), None)
    truth, guesses = chosen.test_targets, outputs.argmax(-1)
    counted = truth != -100
    usual = commonest(chosen.train_targets[chosen.train_targets != -100])
    trivial = np.full_like(truth, usual)
    figures = {
        "test_mean_iou": mean_iou(truth, guesses),
        "test_mean_iou_of_the_commonest_label": mean_iou(truth, trivial),
        "test_accuracy": float(np.mean(guesses[counted] == truth[counted])),
        "test_accuracy_of_the_commonest_label": float(np.mean(truth[counted] == usual)),
    }
    return Evaluation(figures=figures, outputs=outputs)


def mean_iou(truth: np.ndarray, guesses: np.ndarray) -> float:
    """The mean over the classes that there are of what is in both over what is in either.

    It is counted over all images together (Everingham et al. 2010, "The PASCAL Visual Object
    Classes (VOC) Challenge", section 4.3); pixels with label -100 are left out.

    >>> mean_iou(np.array([[0, 0, 1, 1]]), np.array([[0, 0, 0, 1]]))
    0.5833333333333333
    """
    counted = truth != -100
    truth, guesses = truth[counted], guesses[counted]
    overlaps = []
    for label in np.union1d(truth, guesses):
        both = np.count_nonzero((truth == label) & (guesses == label))
        overlaps.append(both / np.count_nonzero((truth == label) | (guesses == label)))
    return float(np.mean(overlaps))


def pictures(spec: Spec, inputs: Any, targets: np.ndarray, found: Evaluation) -> dict[str, Any]:
    """Images above the labels of their pixels, and those that were found; see `Task.pictures`."""
    from flaxnets.page.pictures import segments

    return {"segments": segments(inputs, targets, found.outputs.argmax(-1))}
