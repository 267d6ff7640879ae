"""CoNLL-U, the format of the Universal Dependencies treebanks.

Format: https://universaldependencies.org/format.html: a word a line in ten columns that tabs
separate, a blank line behind every sentence, comments that begin with #.
"""

import re
from pathlib import Path
from typing import NamedTuple

from flaxnets.data.dataset import DataError, Memory
from flaxnets.data.files import read_text
from flaxnets.edge.message import printable

# https://universaldependencies.org/u/pos: all the tags that there are.
UPOS = (
    "ADJ",
    "ADP",
    "ADV",
    "AUX",
    "CCONJ",
    "DET",
    "INTJ",
    "NOUN",
    "NUM",
    "PART",
    "PRON",
    "PROPN",
    "PUNCT",
    "SCONJ",
    "SYM",
    "VERB",
    "X",
)
COLUMNS = 10
OBJECTS = 24  # bytes of memory that a byte of a file takes at most, as texts of lines and words


class Sentence(NamedTuple):
    """Words with their UPOS tags.

    Attributes:
        words: as they are written.
        tags: of the words.
        line: of the last word, from 1.
    """

    words: list[str]
    tags: list[str]
    line: int


def read_conllu(path: Path, memory: Memory | None = None) -> list[Sentence]:
    """The sentences of a file.

    Ranges of words that are written as one (1-2) and words that are understood but not written
    (1.1) are passed over, as every treebank's own words are numbered without them.

    Args:
        path: of the file.
        memory: that the data set may take; the usual limit if None.

    Raises:
        DataError: a file that cannot be read, is too large, is not UTF-8 or breaks the format; the
            line is named.
    """
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*read_text(path, memory, OBJECTS).split("\n"), ""], start=1):
        line = line.removesuffix("\r")
        if not line:
            if words:
                sentences.append(Sentence(words, tags, number - 1))
            words, tags = [], []
        elif not line.startswith("#"):
            where = f"{printable(path)}:{number}"
            columns = line.split("\t")
            if len(columns) != COLUMNS:
                raise DataError(f"{where}: {len(columns)} columns, not {COLUMNS}")
            identifier, word, _, tag, *_ = columns
            if re.fullmatch(r"[0-9]+[-.][0-9]+", identifier):
                continue
            if identifier != str(len(words) + 1):
                raise DataError(f"{where}: word '{printable(identifier)}', not {len(words) + 1}")
            if tag not in UPOS:
                raise DataError(f"{where}: UPOS '{printable(tag)}' is none of {', '.join(UPOS)}")
            words.append(word)
            tags.append(tag)
    return sentences
