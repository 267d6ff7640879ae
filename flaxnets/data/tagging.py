"""Sentences with the part of speech of every word.

Axes: n sentences, t time.
"""

from pathlib import Path

import numpy as np

from flaxnets.data.conllu import UPOS, Sentence, read_conllu
from flaxnets.data.dataset import LIMIT, DataError, Dataset, Memory
from flaxnets.data.files import train_and_test
from flaxnets.data.vocabulary import encode, lengths, pad, vocabulary
from flaxnets.edge.message import printable

ENGLISH = Path(__file__).with_name("english.conllu")
HELD_OUT = 6  # every sixth sentence
LEAST = 2  # times that a word occurs in training; what is rarer teaches what UNKNOWN can be
BEHIND = -100  # the label of no word
PADDED = 8  # bytes of memory for a word of the longest sentence: token and label


def english_tags() -> Dataset:
    """Everyday English written for this library, in Universal Dependencies' 17 tags.

    Every sixth sentence is held out.
    """
    return read([ENGLISH], "english-tags")


def read(files: list[Path], name: str, limit: int = LIMIT) -> Dataset:
    """Tagged sentences of CoNLL-U files.

    Words are in small letters; those that occur once in training are UNKNOWN, and so are those
    of the test that the training part lacks.

    Args:
        files: one with "train" and one with "test" in its name, beside others that are not read;
            or a single file, of which every sixth sentence is for the test.
        name: of the data set.
        limit: bytes of memory that it may take.

    Raises:
        DataError: other files, a broken or too large one, one with too few sentences, or with one
            so long that the others cannot be padded to it.
    """
    memory = Memory(limit)
    if len(files) == 1:
        paths = files[0], files[0]
        sentences = read_conllu(files[0], memory)
        parts = [
            [sentence for i, sentence in enumerate(sentences) if (i % HELD_OUT == 0) == held_out]
            for held_out in (False, True)
        ]
        if not all(parts):
            raise DataError(f"{printable(files[0])} has {len(sentences)} sentences; want 2 or more")
    else:
        paths = train_and_test(files)
        parts = [read_conllu(path, memory) for path in paths]
        for path, part in zip(paths, parts, strict=True):
            if not part:
                raise DataError(f"{printable(path)} has 0 sentences; want 1 or more")
    train, test = parts
    known = vocabulary((_small(sentence) for sentence in train), LEAST)
    steps, line, path = max(
        (len(sentence.words), sentence.line, path)
        for path, part in zip(paths, parts, strict=True)
        for sentence in part
    )
    padded = (
        f"{path}:{line}: a sentence of {steps} words, to which {len(train) + len(test)} are padded"
    )
    memory.take(PADDED * steps * (len(train) + len(test)), padded)
    return Dataset(
        name,
        *_arrays(train, known, steps),
        *_arrays(test, known, steps),
        num_classes=len(UPOS),
        sizes={"vocab_size": len(known), "tagset_size": len(UPOS)},
        words=known,
        labels=UPOS,
        separator=" ",
    )


def _small(sentence: Sentence) -> list[str]:
    return [word.lower() for word in sentence.words]


def _arrays(
    sentences: list[Sentence], known: tuple[str, ...], steps: int
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    rows = encode(map(_small, sentences), known)
    labels = [[UPOS.index(tag) for tag in sentence.tags] for sentence in sentences]
    return (pad(rows, steps), lengths(rows)), pad(labels, steps, BEHIND)
