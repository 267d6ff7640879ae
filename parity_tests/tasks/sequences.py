"""Data and a spec that stand for any network that reads."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flaxnets.data import Dataset
from flaxnets.specs import Input, Spec

WORDS = ("", "^", "$", "?", "_", "a", "b", "c")
TOKENS = np.array([[5, 6, 7, 0], [6, 5, 0, 0]], np.int32)
LENGTHS = np.array([3, 2], np.int32)
DATA = Dataset(
    "letters",
    (TOKENS, LENGTHS),
    np.array([1, 1]),
    (TOKENS, LENGTHS),
    np.array([1, 0]),
    num_classes=2,
    words=WORDS,
    labels=("no", "yes"),
)


@dataclass(frozen=True, kw_only=True)
class Sequences(Spec):
    """Stands for any network that reads tokens and their lengths."""

    task: ClassVar[str] = "classification"
    data: ClassVar[str] = "none"

    def inputs(self, batch):
        """Tokens and their lengths."""
        return (
            Input(name="tokens", shape=(batch, 4), axes="bt", high=8),
            Input(name="lengths", shape=(batch,), axes="b", high=5),
        )
