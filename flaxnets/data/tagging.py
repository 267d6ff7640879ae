"""Sentences with the part of speech of every word.

Axes: n sentences, t time.
"""

from pathlib import Path

import numpy as np

from flaxnets.data.conllu import UPOS, Sentence, read_conllu
from flaxnets.data.dataset import DataError, Dataset
from flaxnets.data.files import train_and_test
from flaxnets.data.vocabulary import encode, lengths, pad, vocabulary

ENGLISH = Path(__file__).with_name("english.conllu")
HELD_OUT = 6  # every sixth sentence
LEAST = 2  # times that a word occurs in training; what is rarer teaches what UNKNOWN can be
BEHIND = -100  # the label of no word


def english_tags() -> Dataset:
    """Everyday English written for this library, in Universal Dependencies' 17 tags.

    Every sixth sentence is held out.
    """
    return read([ENGLISH], "english-tags")


def read(files: list[Path], name: str) -> Dataset:
    """Tagged sentences of CoNLL-U files.

    Words are in small letters; those that occur once in training are UNKNOWN, and so are those
    of the test that the training part lacks.

    Args:
        files: one with "train" and one with "test" in its name, beside others that are not read;
            or a single file, of which every sixth sentence is for the test.
        name: of the data set.

    Raises:
        DataError: other files, a broken one, or one with too few sentences.
    """
    if len(files) == 1:
        sentences = read_conllu(files[0])
        parts = [
            [sentence for i, sentence in enumerate(sentences) if (i % HELD_OUT == 0) == held_out]
            for held_out in (False, True)
        ]
        if not all(parts):
            raise DataError(f"{files[0]} has {len(sentences)} sentences; want 2 or more")
    else:
        parts = []
        for path in train_and_test(files):
            parts.append(read_conllu(path))
            if not parts[-1]:
                raise DataError(f"{path} has 0 sentences; want 1 or more")
    train, test = parts
    known = vocabulary((_small(sentence) for sentence in train), LEAST)
    steps = max(len(words) for words, _ in train + test)
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
    return [word.lower() for word in sentence[0]]


def _arrays(
    sentences: list[Sentence], known: tuple[str, ...], steps: int
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    rows = encode(map(_small, sentences), known)
    labels = [[UPOS.index(tag) for tag in tags] for _, tags in sentences]
    return (pad(rows, steps), lengths(rows)), pad(labels, steps, BEHIND)
