"""Labels of pixels: whole runs against torch, overlap by hand, and a network that learns."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flaxnets import layers, parity, training
from flaxnets.data import Dataset
from flaxnets.specs import Input, Spec
from flaxnets.tasks import evaluate, segmentation
from flaxnets.training import optimizers
from torch_ref.tasks import segmentation as reference

SIZE = 12


def shapes(count, seed):
    """Noisy images of a disc and a square, and of every pixel what it shows: 0 for neither."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    images = 0.3 * rng.random((count, SIZE, SIZE, 1), np.float32)
    labels = np.zeros((count, SIZE, SIZE), np.int32)
    for image, label in zip(images, labels, strict=True):
        (y, x), (top, left) = rng.integers(2, SIZE - 2, 2), rng.integers(0, SIZE - 4, 2)
        square = (rows >= top) & (rows < top + 4) & (columns >= left) & (columns < left + 4)
        disc = (rows - y) ** 2 + (columns - x) ** 2 <= 5
        label[square], label[disc] = 1, 2
        image[square], image[disc] = 0.6, 0.9
    return images, labels


DATA = Dataset("shapes", *shapes(64, 0), *shapes(32, 1), num_classes=3)


@dataclass(frozen=True, kw_only=True)
class SegmenterSpec(Spec):
    """Stands for any network that labels pixels."""

    task: ClassVar[str] = "segmentation"
    data: ClassVar[str] = "none"

    def inputs(self, batch):
        """Images."""
        return (Input(name="image", shape=(batch, SIZE, SIZE, 1), axes="bhwc"),)


class Segmenter(nnx.Module):
    """Two convolutions that keep the size."""

    def __init__(self, rngs):
        self.conv1 = layers.Conv2d(1, 8, 3, padding=1, rngs=rngs)
        self.conv2 = layers.Conv2d(8, 3, 3, padding=1, rngs=rngs)

    def __call__(self, image):
        return self.conv2(jax.nn.relu(self.conv1(image)))


class TorchSegmenter(torch.nn.Module):
    """The same in torch."""

    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = torch.nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, image):
        return self.conv2(self.conv1(image).relu())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_runs_agree(smoothing):
    """Loss, gradients, moments and weights at every step, channels where each side has them."""
    images, labels = shapes(8, 2)
    labels[:, 0] = -100
    task = parity.Task(
        {"": segmentation.objective(smoothing)},
        {"": reference.objective(smoothing)},
        SegmenterSpec().examples(4),
        [(images[:4], labels[:4]), (images[4:], labels[4:])],
    )
    report = parity.check(
        Segmenter(nnx.Rngs(0)),
        TorchSegmenter(),
        SegmenterSpec().inputs(4),
        ["forward", "trajectory"],
        task=task,
    )
    report.raise_if_failed()


def test_beats_the_baseline():
    """A network that learns finds the shapes; one that guesses the background does not."""
    step = training.TrainStep(
        Segmenter(nnx.Rngs(0)), training.Phase(segmentation.objective(), optimizers.adam(lr=0.02))
    )
    batch = jnp.asarray(DATA.train_inputs), jnp.asarray(DATA.train_targets)
    model = step.model(training.fit(step, [batch] * 60, steps=60))
    found = evaluate(SegmenterSpec(), lambda x, *_: np.asarray(model(jnp.asarray(x))), DATA)
    figures = found.figures
    assert figures["test_mean_iou"] > 0.8 > 2 * figures["test_mean_iou_of_the_commonest_label"]
    assert figures["test_accuracy"] > figures["test_accuracy_of_the_commonest_label"] + 0.1
    pictures = segmentation.pictures(SegmenterSpec(), DATA.test_inputs, DATA.test_targets, found)
    assert list(pictures) == ["segments"]


def test_overlap():
    """By hand: of three classes one is missed and one is half found; what is not counted is not."""
    truth = np.array([[0, 0, 0, 0, 1, 1, 2, -100]])
    guesses = np.array([[0, 0, 0, 0, 1, 0, 0, 2]])
    assert segmentation.mean_iou(truth, guesses) == pytest.approx((4 / 6 + 1 / 2 + 0) / 3)
