"""CoNLL-U, the format of the Universal Dependencies treebanks.

Format: https://universaldependencies.org/format.html: a word a line in ten columns that tabs
separate, a blank line behind every sentence, comments that begin with #.
"""

import re
from pathlib import Path

from flaxnets.data.dataset import DataError
from flaxnets.data.files import read_text

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

Sentence = tuple[list[str], list[str]]


def read_conllu(path: Path) -> list[Sentence]:
    """The words and their UPOS tags, a pair of equally long lists a sentence.

    Ranges of words that are written as one (1-2) and words that are understood but not written
    (1.1) are passed over, as every treebank's own words are numbered without them.

    Raises:
        DataError: a file that cannot be read, is not UTF-8 or breaks the format; the line is named.
    """
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*read_text(path).split("\n"), ""], start=1):
        line = line.removesuffix("\r")
        if not line:
            if words:
                sentences.append((words, tags))
            words, tags = [], []
        elif not line.startswith("#"):
            columns = line.split("\t")
            if len(columns) != COLUMNS:
                raise DataError(f"{path}:{number}: {len(columns)} columns, not {COLUMNS}")
            identifier, word, _, tag, *_ = columns
            if re.fullmatch(r"[0-9]+[-.][0-9]+", identifier):
                continue
            if identifier != str(len(words) + 1):
                raise DataError(f"{path}:{number}: word {identifier!r}, not {len(words) + 1}")
            if tag not in UPOS:
                raise DataError(f"{path}:{number}: UPOS {tag!r} is none of {', '.join(UPOS)}")
            words.append(word)
            tags.append(tag)
    return sentences
