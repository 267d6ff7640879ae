"""Batches that worker threads make ahead of time, with Grain, for data that is too large.

The order is that of `flaxnets.data.batches`. A batch is a function of its step number, so a
stream begins anywhere without making what comes before.
"""

import os
import sys
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Int32

from flaxnets.data.dataset import Arrays, DataError
from flaxnets.data.sampler import chosen

if TYPE_CHECKING:
    import grain

THREADS = min(16, os.cpu_count() or 1)  # each makes one batch, so as many are held in memory


class Batches:
    """Batches by their step number: what Grain calls a random access source.

    With several processes each has its own slice of every batch, and the slices of processes
    0, 1, ... behind each other are the batch of a single one.

    Args:
        inputs: one example a row, in one array or several.
        targets: one a row.
        batch_size: examples a batch, of all processes together.
        seed: of the order.
        process: number of this process.
        processes: of the run.

    Raises:
        DataError: a batch that processes cannot share evenly.

    >>> whole = Batches(np.arange(4.0), np.arange(4), 2)
    >>> whole[0][1].tolist(), whole[5][1].tolist()
    ([1, 2], [3, 0])
    >>> Batches(np.arange(4.0), np.arange(4), 2, process=1, processes=2)[0][1].tolist()
    [2]
    """

    def __init__(
        self,
        inputs: Arrays,
        targets: np.ndarray,
        batch_size: int,
        seed: int = 0,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        if not 0 <= process < processes:
            raise DataError(f"process {process} is not between 0 and {processes - 1}")
        if batch_size % processes:
            raise DataError(
                f"batch_size {batch_size} is no multiple of the {processes} processes that share it"
            )
        own = batch_size // processes
        self._own = slice(process * own, (process + 1) * own)
        self._arrays = inputs, targets
        self._order = seed, batch_size, len(targets)

    def rows(self, step: int) -> Int32[np.ndarray, " b"]:
        """This process's examples of a batch."""
        seed, batch_size, examples = self._order
        return chosen(seed, step, batch_size, examples)[self._own]

    def __len__(self) -> int:
        return sys.maxsize  # without end, in Grain's words

    def __getitem__(self, step: int) -> tuple[Any, np.ndarray]:
        rows = self.rows(step)
        return jax.tree.map(lambda x: x[rows], self._arrays)


def stream(
    inputs: Arrays,
    targets: np.ndarray,
    batch_size: int,
    seed: int = 0,
    start: int = 0,
    process: int = 0,
    processes: int = 1,
) -> "grain.DatasetIterator":
    """The batches of `flaxnets.data.batches`, made by threads while the device works.

    Args:
        inputs: one example a row, in one array or several, or `Lazy`.
        targets: one a row.
        batch_size: examples a batch, of all processes together.
        seed: of the order.
        start: number of the first batch, from 0, over all epochs.
        process: number of this process.
        processes: of the run.

    Returns:
        An iterator without end, whose `get_state()["next_index"]` is the number of the batch
        that comes next; `close()` ends its threads.

    Raises:
        DataError: fewer examples than one batch, or a batch that processes cannot share evenly;
            from `next`, an example that cannot be read.

    >>> batches = stream(np.arange(4.0), np.arange(4), 2, start=5)
    >>> next(batches)[1].tolist(), batches.get_state()
    ([3, 0], {'next_index': 6})
    >>> batches.close()
    """
    import grain  # which takes a quarter of what a command takes to start

    source = Batches(inputs, targets, batch_size, seed, process, processes)
    source.rows(start)  # what is impossible shows before a thread starts
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=THREADS)
    batches = iter(grain.MapDataset.source(source).to_iter_dataset(options))
    batches.set_state({"next_index": start})
    return batches
