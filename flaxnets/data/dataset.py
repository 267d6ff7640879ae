"""Inputs with targets, split into training and test, and what makes them fit a network."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from flaxnets.data.lazy import Lazy
from flaxnets.data.windows import windows
from flaxnets.edge.message import printable
from flaxnets.specs import PAD, Input

LIMIT = 4 << 30
"""Bytes of memory that a data set from files may take, if nothing else is said."""
Arrays = np.ndarray | Lazy | tuple[np.ndarray, ...]


class DataError(ValueError):
    """Data that is not there or does not fit; the message is one line."""


class Memory:
    """The memory that a data set may take, counted before it is taken.

    Args:
        limit: of all that is taken together, in bytes.

    >>> memory = Memory(100)
    >>> memory.take(60, "a.npz")
    >>> memory.take(60, "b.npz")
    Traceback (most recent call last):
    ...
    flaxnets.data.dataset.DataError: b.npz: the data takes 120 bytes of memory, more than the \
limit of 100; raise it with --data-limit
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit, self._taken = limit, 0

    def take(self, count: int, where: object) -> None:
        """Count bytes that are about to be taken.

        Args:
            count: of bytes.
            where: they are from, for the error.

        Raises:
            DataError: more than the limit.
        """
        self._taken += count
        if self._taken > self._limit:
            raise DataError(
                f"{printable(where)}: the data takes {printable(f'{self._taken:,}')} bytes of "
                f"memory, more than the limit of {self._limit:,}; raise it with --data-limit"
            )


@dataclass(frozen=True)
class Dataset:
    """Inputs with targets, split for good.

    Attributes:
        name: of the data set.
        train_inputs: images between 0 and 1 (n, h, w, c), rows of features (n, f), token
            sequences with their lengths ((n, t), (n,)), or one series of numbers (n,). Images
            may be `Lazy`.
        train_targets: labels (n,), a label a token (n, t) with -100 behind the end, token
            sequences (n, t), or rows of numbers where `num_classes` is None. Of a series, the
            series itself.
        test_inputs: as for training. Of a series all of it, the training part first.
        test_targets: as for training.
        num_classes: of the labels; None where targets are numbers.
        sizes: how large a network's spec fields have to be, by name.
        words: what the tokens of the inputs mean.
        labels: what labels, or the tokens of the targets, mean.
        separator: between words that are shown.
        trend: of a series, whether it leaves the range of its training part; a window and what
            follows it are differences from the window's last value then.

    >>> images, labels = np.zeros((4, 8, 8, 1)), np.array([0, 1, 1, 0])
    >>> Dataset("mine", images[:3], labels[:3], images[3:], labels[3:], num_classes=2).name
    'mine'
    """

    name: str
    train_inputs: Arrays
    train_targets: np.ndarray
    test_inputs: Arrays
    test_targets: np.ndarray
    num_classes: int | None
    sizes: Mapping[str, int] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    separator: str = ""
    trend: bool = False

    def digest(self) -> str:
        """What changes when an example, a target or a word does, and not with the name.

        Of `Lazy` examples their `identity` counts, so that none has to be read.
        """
        about = self.num_classes, self.words, self.labels, self.trend
        found = hashlib.sha256(repr(about).encode())
        arrays = self.train_inputs, self.train_targets, self.test_inputs, self.test_targets
        for leaf in jax.tree.leaves(arrays):
            if isinstance(leaf, Lazy):
                found.update(repr((leaf.count, leaf.identity)).encode())
            else:
                found.update(repr((leaf.shape, leaf.dtype.str)).encode())
                found.update(np.ascontiguousarray(leaf).data)
        return found.hexdigest()

    def test_words(self, row: int) -> list[str]:
        """The words of a test example, without what is behind its end."""
        inputs = self.test_inputs
        tokens, *more = (part[row] for part in (inputs if isinstance(inputs, tuple) else (inputs,)))
        if tokens.ndim == 2:
            tokens = tokens.argmax(-1)
        length = more[0].sum() if more else np.count_nonzero(tokens != PAD)
        return [self.words[token] for token in tokens[:length]]


def split(name: str, images: np.ndarray, labels: np.ndarray, share: float = 0.2) -> Dataset:
    """Hold out a share of every class: the same images on every machine and version.

    >>> half = split("x", np.zeros((4, 1, 1, 1)), np.array([0, 0, 1, 1]), 0.5)
    >>> half.test_targets.tolist()
    [0, 1]
    """
    held_out = hold_out(labels, share)
    return Dataset(
        name=name,
        train_inputs=images[~held_out],
        train_targets=labels[~held_out],
        test_inputs=images[held_out],
        test_targets=labels[held_out],
        num_classes=int(labels.max()) + 1,
    )


def hold_out(labels: Int[np.ndarray, " n"], share: float) -> np.ndarray:
    """Which examples are for the test: a share of every class, evenly spaced.

    >>> hold_out(np.array([0, 1, 0, 1]), 0.5).tolist()
    [True, True, False, False]
    """
    held_out = np.zeros(len(labels), bool)
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order])) + 1
    for members in np.split(order, starts):
        # Evenly spaced, so that a package that sorts its images by writer or by hand is fair.
        count = round(len(members) * share)
        held_out[members[np.arange(count) * len(members) // max(count, 1)]] = True
    return held_out


def fifth(targets: np.ndarray, where: Path) -> np.ndarray:
    """Which examples of a file or folder without a test part are for the test.

    Args:
        targets: labels, of each of which a fifth is taken; or numbers (n, o).
        where: the examples are from.

    Raises:
        DataError: too few examples.

    >>> fifth(np.zeros((10, 1), np.float32), Path("a.csv")).astype(int).tolist()
    [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    """
    labelled = np.issubdtype(targets.dtype, np.integer)
    held_out = hold_out(targets if labelled else np.zeros(len(targets), int), 0.2)
    if not held_out.any():
        raise DataError(
            f"{printable(where)} has {len(targets)} examples, too few to hold some out; "
            f"want 3 or more{' of a class' if labelled else ''}"
        )
    return held_out


def fit(
    dataset: Dataset, examples: tuple[Input, ...], targets: Input | None, limit: int = LIMIT
) -> Dataset:
    """The data as a network is trained on it.

    Images and rows go through `fit_to`. Tokens become rows of zeros and a one where the network
    eats real numbers; a second input is their lengths, or ones where there are tokens. A series
    becomes windows, which slide by one: the features of step i are the values from i on, and
    the target is what follows the last window.

    Args:
        dataset: the data.
        examples: what the network is trained on.
        targets: what it is trained towards.
        limit: bytes of memory that arrays of another size may take.

    Raises:
        DataError: data that cannot be made to fit.

    >>> images, labels = np.zeros((4, 8, 8, 1)), np.array([0, 1, 1, 0])
    >>> mine = Dataset("mine", images[:3], labels[:3], images[3:], labels[3:], num_classes=2)
    >>> wanted = Input(name="image", shape=(1, 64), axes="bf")
    >>> fit(mine, (wanted,), None).train_inputs.shape
    (3, 64)
    """
    memory = Memory(limit)
    if isinstance(dataset.train_inputs, tuple):
        return replace(
            dataset,
            train_inputs=_sequences(dataset.name, dataset.train_inputs, examples, memory),
            test_inputs=_sequences(dataset.name, dataset.test_inputs, examples, memory),
        )
    if dataset.train_inputs.ndim == 1:
        return _series(dataset, examples, targets)
    if len(examples) > 1 or isinstance(dataset.test_inputs, tuple):
        eaten = ", ".join(wanted.name for wanted in examples)
        raise DataError(f"{dataset.name} is one array, the network eats {eaten}")
    wanted = examples[0]
    for inputs in (dataset.train_inputs, dataset.test_inputs):
        if isinstance(inputs, np.ndarray) and inputs.ndim == 4:
            memory.take(4 * len(inputs) * math.prod(wanted.shape[1:]), dataset.name)
    return replace(
        dataset,
        train_inputs=fit_to(dataset.train_inputs, wanted.shape, wanted.axes),
        test_inputs=fit_to(dataset.test_inputs, wanted.shape, wanted.axes),
    )


def _sequences(name: str, inputs: Arrays, examples: tuple[Input, ...], memory: Memory) -> Arrays:
    tokens, lengths = inputs
    wanted, *more = examples
    if wanted.axes not in ("bt", "btf"):
        raise DataError(f"{name} holds sequences of tokens, the network eats {wanted.axes}")
    high = wanted.shape[-1] if wanted.high is None else wanted.high
    if tokens.max() >= high:
        raise DataError(f"{name} has {tokens.max() + 1} tokens, {wanted.name} takes {high}")
    if wanted.high is None:
        memory.take(4 * tokens.size * high, name)
        rows = np.zeros((*tokens.shape, high), np.float32)
        np.put_along_axis(rows, tokens[..., None], 1, axis=-1)
        tokens = rows
    if not more:
        return tokens
    present = (np.arange(tokens.shape[1]) < lengths[:, None]).astype(np.int32)
    return tokens, lengths if more[0].axes == "b" else present


def _series(dataset: Dataset, examples: tuple[Input, ...], targets: Input | None) -> Dataset:
    train, test = dataset.train_inputs, dataset.test_inputs
    assert isinstance(train, np.ndarray)
    assert isinstance(test, np.ndarray)
    if any(wanted.axes != "btf" for wanted in examples):
        eaten = ", ".join(f"{wanted.name} {wanted.axes}" for wanted in examples)
        raise DataError(f"{dataset.name} is a series of numbers, the network eats {eaten}")
    steps = max(wanted.shape[1] for wanted in examples)
    features = examples[0].shape[2]
    shape = (1,) if targets is None else targets.shape[1:]
    ahead = shape[-1]
    if len(test) - len(train) < ahead or len(train) < steps + features - 1 + ahead:
        raise DataError(
            f"{dataset.name} has {len(train)} + {len(test) - len(train)} values, too few for "
            f"{steps} windows of {features} and {ahead} values ahead; use a smaller network"
        )

    def cut(values: np.ndarray) -> tuple[Any, np.ndarray]:
        inputs, following = windows(values, steps, features, ahead, each=len(shape) > 1)
        if dataset.trend:
            last = inputs[:, -1, -1]
            inputs = inputs - last[:, None, None]
            following = following - last.reshape(-1, *[1] * len(shape))
        parts = tuple(inputs[:, steps - wanted.shape[1] :] for wanted in examples)
        return parts if len(parts) > 1 else parts[0], following[:, -shape[0] :]

    (train_inputs, train_targets), (test_inputs, test_targets) = (
        cut(values) for values in (train, test[len(train) - steps - features + 1 :])
    )
    return replace(
        dataset,
        train_inputs=train_inputs,
        train_targets=train_targets,
        test_inputs=test_inputs,
        test_targets=test_targets,
    )


def fit_to(inputs: np.ndarray | Lazy, shape: tuple[int, ...], axes: str) -> Any:
    """Inputs as a network wants them.

    Images are resized (bilinear, antialiased), made grey or repeated over channels, or laid in
    a row; rows have to fit as they are. Images that are read when they are asked for may differ
    in size and channels, and are made to fit one by one then.

    Args:
        inputs: images with channels last (n, h, w, c), or rows (n, f).
        shape: of the network's input for a batch of any size.
        axes: of that input: "bhwc", or "bf" for rows of features or pixels.

    Raises:
        DataError: inputs that cannot be made to fit.

    >>> fit_to(np.ones((2, 28, 28, 1), np.float32), (1, 100), "bf").shape
    (2, 100)
    >>> fit_to(Lazy(2, lambda i: np.ones((5 + i, 7, 3), np.float32)), (1, 8, 8, 1), "bhwc").shape
    (2, 8, 8, 1)
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
    if isinstance(inputs, Lazy):
        _with_channels(inputs[0], wanted[2])  # what cannot be mended shows at once

        def one(image: np.ndarray) -> np.ndarray:
            return _resized(_with_channels(image, wanted[2]), *wanted[:2]).reshape(shape[1:])

        return inputs.map(one)
    inputs = _with_channels(inputs, wanted[2])
    if (height, width) != wanted[:2]:
        inputs = np.asarray(jax.image.resize(inputs, (count, *wanted), "bilinear"))
    return inputs.reshape(count, -1) if axes == "bf" else inputs


def _with_channels(images: Float[np.ndarray, "*x c"], channels: int) -> np.ndarray:
    found = images.shape[-1]
    if found == channels:
        return images
    if found != 1 and channels != 1:
        raise DataError(f"images of {found} channels do not fit in_channels {channels}")
    return np.repeat(images.mean(axis=-1, keepdims=True), channels, axis=-1)


def _resized(image: Float[np.ndarray, "h w c"], height: int, width: int) -> np.ndarray:
    """What `jax.image.resize` makes of it, which would be compiled for every size of a folder."""
    from PIL import Image

    if image.shape[:2] == (height, width):
        return image
    planes = [
        Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR)
        for plane in np.moveaxis(image, -1, 0)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)
