"""The order in which a run meets its examples, a function of (seed, epoch), and its batches.

Batch number `step`, from 0 and over all epochs, is a slice of the order of its epoch, so the
place of a run in its data is its step number.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Int32

from flaxnets.data.dataset import Arrays, DataError


@functools.lru_cache(maxsize=4)  # an epoch's order is asked for at every one of its steps
def order(seed: int, epoch: int, count: int) -> Int32[np.ndarray, " count"]:
    """The examples of one epoch, shuffled; the array cannot be written to.

    Args:
        seed: of the order.
        epoch: from 0.
        count: of the examples.

    >>> order(0, 0, 4), order(0, 1, 4)
    (array([1, 2, 0, 3], dtype=int32), array([0, 3, 1, 2], dtype=int32))
    """
    key = np.array([seed % 2**64, epoch], np.uint64)
    shuffled = np.random.Generator(np.random.Philox(key=key)).permutation(count).astype(np.int32)
    shuffled.setflags(write=False)
    return shuffled


def chosen(seed: int, step: int, batch_size: int, count: int) -> Int32[np.ndarray, " b"]:
    """The examples of one batch.

    Args:
        seed: of the order.
        step: number of the batch, from 0, over all epochs.
        batch_size: examples a batch; the rest of an epoch that fills none is left out.
        count: of the examples.

    Raises:
        DataError: fewer examples than one batch, or a step before the first.

    >>> [chosen(0, step, 2, 4).tolist() for step in range(4)]
    [[1, 2], [0, 3], [0, 3], [1, 2]]
    """
    if not 1 <= batch_size <= count:
        raise DataError(f"batch_size {batch_size} is not between 1 and the {count} examples")
    if step < 0:
        raise DataError(f"step {step} is before the first; use 0 or more")
    epoch, place = divmod(step, count // batch_size)
    return order(seed, epoch, count)[place * batch_size : (place + 1) * batch_size]


def batches(
    inputs: Arrays, targets: np.ndarray, batch_size: int, seed: int = 0, start: int = 0
) -> Iterator[tuple[Any, np.ndarray]]:
    """Batches without end, reshuffled every epoch; the order follows from seed and epoch alone.

    Args:
        inputs: one example a row, in one array or several.
        targets: one a row.
        batch_size: examples a batch; the rest of an epoch that fills none is left out.
        seed: of the order.
        start: number of the first batch, from 0, over all epochs.

    Raises:
        DataError: fewer examples than one batch.

    >>> stream = batches(np.arange(4.0), np.arange(4), 2)
    >>> [next(stream)[1].tolist() for _ in range(3)]
    [[1, 2], [0, 3], [0, 3]]
    >>> next(batches(np.arange(4.0), np.arange(4), 2, start=2))[1].tolist()
    [0, 3]
    """
    for step in itertools.count(start):
        rows = chosen(seed, step, batch_size, len(targets))
        yield jax.tree.map(lambda x, rows=rows: x[rows], inputs), targets[rows]
