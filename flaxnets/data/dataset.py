"""Images with labels, split into training and test, and batches of them in a repeatable order."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float, Int


class DataError(ValueError):
    """Data that is not there or does not fit; the message is one line."""


@dataclass(frozen=True)
class Dataset:
    """Labelled images, between 0 and 1, split for good.

    Axes: n images, h w pixels, c channels.
    """

    name: str
    train_images: Float[np.ndarray, "n h w c"]
    train_labels: Int[np.ndarray, " n"]
    test_images: Float[np.ndarray, "m h w c"]
    test_labels: Int[np.ndarray, " m"]
    num_classes: int


def split(name: str, images: np.ndarray, labels: np.ndarray, share: float = 0.2) -> Dataset:
    """Hold out a share of every class: the same images on every machine and version.

    >>> half = split("x", np.zeros((4, 1, 1, 1)), np.array([0, 0, 1, 1]), 0.5)
    >>> half.test_labels.tolist()
    [0, 1]
    """
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        # Evenly spaced, so that a package that sorts its images by writer or by hand is fair.
        count = round(len(members) * share)
        held_out[members[np.arange(count) * len(members) // max(count, 1)]] = True
    return Dataset(
        name=name,
        train_images=images[~held_out],
        train_labels=labels[~held_out],
        test_images=images[held_out],
        test_labels=labels[held_out],
        num_classes=int(labels.max()) + 1,
    )


def fit_to(images: Float[np.ndarray, "n h w c"], shape: tuple[int, ...], axes: str) -> np.ndarray:
    """Images as a network wants them: resized (bilinear, antialiased), grey, or as one row.

    Args:
        images: with channels last, between 0 and 1.
        shape: of the network's input for a batch of any size.
        axes: of that input: "bhwc", or "bf" for rows of pixels of a square image.

    Raises:
        DataError: an input that no image can be made to fit.

    >>> fit_to(np.ones((2, 28, 28, 1), np.float32), (1, 100), "bf").shape
    (2, 100)
    """
    count, height, width, channels = images.shape
    if axes == "bf":
        side = math.isqrt(shape[1] // channels)
        wanted: tuple[int, ...] = (side, side, channels)
        if side * side * channels != shape[1]:
            raise DataError(
                f"in_features {shape[1]} is no square image of {channels} channels; "
                f"use {height * width * channels}"
            )
    elif axes == "bhwc":
        wanted = shape[1:]
    else:
        raise DataError(f"the network eats {axes}, not images; use another data set")
    if wanted[2] != channels:
        if channels != 1 and wanted[2] != 1:
            raise DataError(f"images of {channels} channels do not fit in_channels {wanted[2]}")
        images = np.repeat(images.mean(axis=3, keepdims=True), wanted[2], axis=3)
    if (height, width) != wanted[:2]:
        images = np.asarray(jax.image.resize(images, (count, *wanted), "bilinear"))
    return images.reshape(count, -1) if axes == "bf" else images


def batches(
    inputs: np.ndarray, labels: np.ndarray, batch_size: int, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches without end, reshuffled every epoch; the order follows from seed and epoch alone.

    Args:
        inputs: one example a row.
        labels: one a row.
        batch_size: examples a batch; the rest of an epoch that fills none is left out.
        seed: of the order.

    Raises:
        DataError: fewer examples than one batch.

    >>> stream = batches(np.arange(4.0), np.arange(4), 2)
    >>> sorted([*next(stream)[1], *next(stream)[1]]) == [0, 1, 2, 3]
    True
    """
    if not 1 <= batch_size <= len(labels):
        raise DataError(f"batch_size {batch_size} is not between 1 and the {len(labels)} examples")
    epoch = 0
    while True:
        order = np.random.Generator(np.random.Philox(key=(seed, epoch))).permutation(len(labels))
        for start in range(0, len(labels) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            yield inputs[chosen], labels[chosen]
        epoch += 1
