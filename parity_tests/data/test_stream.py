"""Grain's batches are those of `batches`, bit for bit, from any step on, in any number of parts."""

import re
import threading
from itertools import islice

import jax
import numpy as np
import pytest

from flaxnets import data
from flaxnets.data.stream import THREADS, stream

RNG = np.random.default_rng(0)
IMAGES = RNG.random((43, 4, 4, 1), np.float32)
TOKENS = RNG.integers(0, 9, (43, 5)).astype(np.int32), RNG.integers(1, 6, 43).astype(np.int32)
TARGETS = RNG.integers(0, 9, 43).astype(np.int32)
LAZY = data.Lazy(len(IMAGES), lambda number: IMAGES[number])


def taken(batches, count):
    """A number of batches, after which the threads end."""
    found = list(islice(batches, count))
    batches.close()
    return found


def assert_same(some, others):
    """Equal in every bit, and in dtype."""
    some, others = jax.tree.leaves(some), jax.tree.leaves(others)
    for a, b in zip(some, others, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("inputs", [IMAGES, TOKENS, LAZY], ids=["array", "several", "lazy"])
@pytest.mark.parametrize("start", [0, 3, 17])
def test_batches(inputs, start):
    """Over the end of several epochs, from any step on."""
    expected = list(islice(data.batches(inputs, TARGETS, 8, seed=2), start, start + 12))
    assert_same(taken(stream(inputs, TARGETS, 8, 2, start), 12), expected)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes(processes):
    """The parts of all processes behind each other are the batch of one."""
    parts = [
        taken(stream(TOKENS, TARGETS, 8, 2, 4, process, processes), 6)
        for process in range(processes)
    ]
    whole = [
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *batch)
        for batch in zip(*parts, strict=True)
    ]
    assert_same(whole, list(islice(data.batches(TOKENS, TARGETS, 8, 2, 4), 6)))


def test_state():
    """The state is the number of the next batch, however many were made ahead."""
    batches = stream(IMAGES, TARGETS, 8, start=9)
    seen = [next(batches) for _ in range(3)]
    assert batches.get_state() == {"next_index": 12}
    batches.set_state({"next_index": 10})
    assert_same(next(batches), seen[1])
    batches.close()


def test_resuming_replays_nothing():
    """A late start reads the examples of its own batches only."""
    seen = []
    lazy = data.Lazy(43, lambda number: seen.append(number) or IMAGES[number])
    (batch,) = taken(stream(lazy, TARGETS, 8, start=10**6), 1)
    assert_same(batch, next(data.batches(IMAGES, TARGETS, 8, start=10**6)))
    for thread in threading.enumerate():
        if thread.name.startswith("grain"):
            thread.join()
    assert len(seen) <= 8 * (1 + THREADS)  # what threads made ahead, at most


def test_worker_threads():
    """Examples are read by Grain's threads, and before they are asked for."""
    readers = []
    ahead = threading.Event()

    def read(number):
        readers.append(threading.current_thread().name)
        if len(readers) > 8:
            ahead.set()
        return IMAGES[number]

    batches = stream(data.Lazy(43, read), TARGETS, 8)
    next(batches)
    assert ahead.wait(timeout=30)
    batches.close()
    assert all(name.startswith("grain-prefetch") for name in readers)


def test_broken_example():
    """An error in a thread is the error of the batch that it belongs to."""

    def read(number):
        raise data.DataError(f"image {number} is broken")

    batches = stream(data.Lazy(43, read), TARGETS, 8)
    with pytest.raises(data.DataError) as caught:
        next(batches)
    batches.close()
    assert re.fullmatch(r"image \d+ is broken", str(caught.value))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 44}, "batch_size 44 is not between 1 and the 43 examples"),
        ({"batch_size": 8, "start": -1}, "step -1 is before the first"),
        (
            {"batch_size": 9, "processes": 2},
            "batch_size 9 is no multiple of the 2 processes that share it",
        ),
        ({"batch_size": 8, "process": 2, "processes": 2}, "process 2 is not between 0 and 1"),
    ],
)
def test_wrong_input(options, message):
    """Each mistake gets one line that names it, before a thread starts."""
    with pytest.raises(data.DataError, match=message):
        stream(IMAGES, TARGETS, **options)
