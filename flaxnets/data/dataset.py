"""Inputs with targets, split into training and test, and batches in a repeatable order."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float, Shaped


class DataError(ValueError):
    """Data that is not there or does not fit; the message is one line."""


@dataclass(frozen=True)
class Dataset:
    """Inputs with targets, split for good.

    Inputs are images between 0 and 1 (n, h, w, c) or rows of features (n, f); targets are
    labels (n,), or rows of numbers where `num_classes` is None.
    """

    name: str
    train_inputs: Float[np.ndarray, "n *shape"]
    train_targets: Shaped[np.ndarray, "n *target"]
    test_inputs: Float[np.ndarray, "m *shape"]
    test_targets: Shaped[np.ndarray, "m *target"]
    num_classes: int | None


def split(name: str, images: np.ndarray, labels: np.ndarray, share: float = 0.2) -> Dataset:
    """Hold out a share of every class: the same images on every machine and version.

    >>> half = split("x", np.zeros((4, 1, 1, 1)), np.array([0, 0, 1, 1]), 0.5)
    >>> half.test_targets.tolist()
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
        train_inputs=images[~held_out],
        train_targets=labels[~held_out],
        test_inputs=images[held_out],
        test_targets=labels[held_out],
        num_classes=int(labels.max()) + 1,
    )


def fit_to(inputs: Float[np.ndarray, "n *x"], shape: tuple[int, ...], axes: str) -> np.ndarray:
    """Inputs as a network wants them.

    Images are resized (bilinear, antialiased), made grey or repeated over channels, or laid in
    a row; rows have to fit as they are.

    Args:
        inputs: images with channels last, or rows.
        shape: of the network's input for a batch of any size.
        axes: of that input: "bhwc", or "bf" for rows of features or pixels.

    Raises:
        DataError: inputs that cannot be made to fit.

    >>> fit_to(np.ones((2, 28, 28, 1), np.float32), (1, 100), "bf").shape
    (2, 100)
    """
    if inputs.ndim == 2:
        if axes != "bf" or inputs.shape[1:] != shape[1:]:
            raise DataError(
                f"rows of {inputs.shape[1]} features do not fit an input {axes} {shape[1:]}; "
                "use another data set or size"
            )
        return inputs
    count, height, width, channels = inputs.shape
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
        inputs = np.repeat(inputs.mean(axis=3, keepdims=True), wanted[2], axis=3)
    if (height, width) != wanted[:2]:
        inputs = np.asarray(jax.image.resize(inputs, (count, *wanted), "bilinear"))
    return inputs.reshape(count, -1) if axes == "bf" else inputs


def batches(
    inputs: np.ndarray, targets: np.ndarray, batch_size: int, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches without end, reshuffled every epoch; the order follows from seed and epoch alone.

    Args:
        inputs: one example a row.
        targets: one a row.
        batch_size: examples a batch; the rest of an epoch that fills none is left out.
        seed: of the order.

    Raises:
        DataError: fewer examples than one batch.

    >>> stream = batches(np.arange(4.0), np.arange(4), 2)
    >>> sorted([*next(stream)[1], *next(stream)[1]]) == [0, 1, 2, 3]
    True
    """
    if not 1 <= batch_size <= len(targets):
        raise DataError(f"batch_size {batch_size} is not between 1 and the {len(targets)} examples")
    epoch = 0
    while True:
        order = np.random.Generator(np.random.Philox(key=(seed, epoch))).permutation(len(targets))
        for start in range(0, len(targets) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            yield inputs[chosen], targets[chosen]
        epoch += 1
