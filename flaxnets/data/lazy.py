"""Examples that are made when they are asked for, so that they need not fit into memory."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Lazy:
    """A sequence that is indexed as the first axis of an array is.

    Attributes:
        count: of the examples, 1 or more.
        read: makes the example of a number, in any thread.
        identity: what changes when the examples do, as far as it can be told without reading them.

    >>> squares = Lazy(4, lambda i: np.array([i**2]))
    >>> squares[3], squares[:2].tolist(), squares[np.array([2, 0])].tolist(), squares.shape
    (array([9]), [[0], [1]], [[4], [0]], (4, 1))
    """

    count: int
    read: Callable[[int], np.ndarray]
    identity: str = ""

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> np.ndarray:
        numbers = np.arange(self.count)[index]
        if numbers.ndim == 0:
            return self.read(int(numbers))
        if not len(numbers):
            return np.empty((0, *self.shape[1:]), self.dtype)
        return np.stack([self.read(int(number)) for number in numbers])

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.read, range(self.count))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> "Lazy":
        """The same examples, each changed when it is made."""
        return Lazy(self.count, lambda number: change(self.read(number)), self.identity)

    @functools.cached_property
    def _first(self) -> np.ndarray:
        return self.read(0)

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array of them all; the first example speaks for the others."""
        return self.count, *self._first.shape

    @property
    def ndim(self) -> int:
        """As of an array of them all."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """As of an array of them all."""
        return self._first.dtype

    @property
    def nbytes(self) -> int:
        """As of an array of them all."""
        return math.prod(self.shape) * self.dtype.itemsize
