"""Words or characters as the integers that networks read, and rows of them in one array.

Axes: n rows, t time.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from flaxnets.specs import PAD, UNKNOWN

# Shown for PAD, START, END, UNKNOWN and MASK, which every vocabulary begins with.
SPECIALS = ("<pad>", "<start>", "<end>", "<unknown>", "<mask>")


def vocabulary(texts: Iterable[Sequence[str]], least: int = 1) -> tuple[str, ...]:
    """The special tokens, then every word by how often it occurs, equals by the alphabet.

    Args:
        texts: of words or characters.
        least: times that a word has to occur to be in it.

    >>> vocabulary(["abba", "cab"], least=2)[5:]
    ('a', 'b')
    """
    counts = Counter(word for text in texts for word in text)
    kept = (word for word, count in counts.items() if count >= least)
    return (*SPECIALS, *sorted(kept, key=lambda word: (-counts[word], word)))


def encode(texts: Iterable[Sequence[str]], words: tuple[str, ...]) -> list[list[int]]:
    """The token of every word, UNKNOWN for one that the vocabulary lacks.

    >>> encode(["abc"], vocabulary(["ab"]))
    [[5, 6, 3]]
    """
    tokens = {word: token for token, word in enumerate(words)}
    return [[tokens.get(word, UNKNOWN) for word in text] for text in texts]


def pad(rows: Sequence[Sequence[int]], steps: int, padding: int = PAD) -> np.ndarray:
    """Rows of any length as one array (n, t) of int32.

    Args:
        rows: of at most `steps` integers.
        steps: of the array.
        padding: behind the end of a row.

    >>> pad([[5], [6, 7]], 3).tolist()
    [[5, 0, 0], [6, 7, 0]]
    """
    array = np.full((len(rows), steps), padding, np.int32)
    for row, tokens in zip(array, rows, strict=True):
        row[: len(tokens)] = tokens
    return array


def lengths(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """How long every row is, as int32.

    >>> lengths([[5], [6, 7]]).tolist()
    [1, 2]
    """
    return np.array([len(row) for row in rows], np.int32)
