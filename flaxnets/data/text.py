"""English text for networks that guess hidden words.

Axes: n passages, t time.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from flaxnets.data.dataset import LIMIT, DataError, Dataset, Memory
from flaxnets.data.files import read_text
from flaxnets.data.vocabulary import encode, lengths, pad, vocabulary
from flaxnets.edge.message import printable

STEPS = 32  # words a passage
LEAST = 5  # times that a word occurs in training; what is rarer is UNKNOWN
OBJECTS = 48  # bytes of memory that a byte of a file takes at most, as texts of words
HELD_OUT = 10  # every tenth topic or file, or the last tenth of a single file


def python_docs() -> Dataset:
    """What Python's `help` says about the language, in passages of 32 words.

    Every tenth topic is held out. Topics quote each other: of a paragraph that occurs more than
    once, the first is kept, and the topics that are held out come first. The text, and with it
    the number of passages, is that of the running Python.
    """
    names = sorted(topics)
    test = names[::HELD_OUT]
    train = [name for name in names if name not in test]
    seen: set[tuple[str, ...]] = set()

    def kept(name: str) -> Iterable[str]:
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            found = tuple(words("\n".join(filter(_is_prose, paragraph.split("\n")))))
            if found not in seen:
                seen.add(found)
                yield from found

    parts = [[list(kept(name)) for name in part] for part in (test, train)]
    return _dataset("python-docs", parts[1], parts[0])


def read(files: list[Path], name: str, limit: int = LIMIT) -> Dataset:
    """Plain text of UTF-8 files; every tenth is held out, or the last tenth of a single one.

    Args:
        files: to be read.
        name: of the data set.
        limit: bytes of memory that it may take.

    Raises:
        DataError: a file that cannot be read, too much text or too little.
    """
    memory = Memory(limit)
    texts = [words(read_text(path, memory, OBJECTS)) for path in files]
    if len(texts) == 1:
        last = len(texts[0]) // HELD_OUT
        train, test = [texts[0][:-last]], [texts[0][-last:]]
        if not last:
            raise DataError(
                f"{printable(files[0])} has {len(texts[0])} words; want {HELD_OUT} or more"
            )
    else:
        test = texts[::HELD_OUT]
        train = [text for i, text in enumerate(texts) if i % HELD_OUT]
        if not (any(train) and any(test)):
            folder = printable(files[0].parent)
            raise DataError(f"{folder} has *.txt files without a word to train or test on")
    return _dataset(name, train, test)


def words(text: str) -> list[str]:
    """The words of a text in small letters; a punctuation mark is one, and so is a number.

    >>> words("It isn't (x.real).")
    ['it', "isn't", '(', 'x', '.', 'real', ')', '.']
    """
    return re.findall(r"\w+(?:['\N{RIGHT SINGLE QUOTATION MARK}]\w+)*|[^\w\s]", text.lower())


def _is_prose(line: str) -> bool:
    """Whether a line is neither underlining, nor of a table, nor typed at the prompt."""
    return bool(re.search(r"[^\W\d_]", line)) and not line.lstrip().startswith(("|", ">>>", "..."))


def _dataset(name: str, train: list[list[str]], test: list[list[str]]) -> Dataset:
    known = vocabulary(train, LEAST)

    def passages(texts: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
        rows = [
            tokens[start : start + STEPS]
            for tokens in encode(texts, known)
            for start in range(0, len(tokens), STEPS)
        ]
        return pad(rows, STEPS), lengths(rows)

    train_inputs, test_inputs = passages(train), passages(test)
    return Dataset(
        name,
        train_inputs,
        train_inputs[0],
        test_inputs,
        test_inputs[0],
        num_classes=None,
        sizes={"vocab_size": len(known)},
        words=known,
        separator=" ",
    )
