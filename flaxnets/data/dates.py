"""Dates in words, to be translated to ISO 8601.

Axes: n dates, t characters.
"""

import datetime
import hashlib

import numpy as np

from flaxnets.data.dataset import Dataset
from flaxnets.data.packaged import package
from flaxnets.data.vocabulary import SPECIALS, encode, lengths, pad, vocabulary
from flaxnets.specs import END, START

LANGUAGES = ("de", "en", "es", "fr", "it", "nl", "pt", "sv")
STYLES = ("full", "long", "medium")
FIRST, LAST = datetime.date(1950, 1, 1), datetime.date(2050, 12, 31)
TRAIN, TEST = 10_000, 1_000
DIGITS = (*SPECIALS, *"-0123456789")


def dates() -> Dataset:
    """11,000 different days of 1950 to 2050 in 8 languages and 3 styles, as Babel writes them.

    "Mittwoch, 1. März 2023" -> "2023-03-01". 1,000 days are held out.
    """
    write = package("babel.dates", "Babel").format_date
    every = (FIRST + datetime.timedelta(days) for days in range((LAST - FIRST).days + 1))
    # A hash is the same on every machine, and draws day, language and style independently.
    drawn = sorted((hashlib.sha256(day.isoformat().encode()).digest(), day) for day in every)
    targets, sources = [], []
    for digest, day in drawn[: TRAIN + TEST]:
        language, style = LANGUAGES[digest[-1] % len(LANGUAGES)], STYLES[digest[-2] % len(STYLES)]
        targets.append(day.isoformat())
        # Some languages have spaces that do not break, which differ between versions of Babel.
        sources.append(" ".join(write(day, style, locale=language).split()))
    words = vocabulary(sources[:TRAIN])
    rows = encode(sources, words)
    tokens, ends = pad(rows, max(map(len, rows))), lengths(rows)
    answers = np.array([[START, *row, END] for row in encode(targets, DIGITS)], np.int32)
    return Dataset(
        "dates",
        (tokens[:TRAIN], ends[:TRAIN]),
        answers[:TRAIN],
        (tokens[TRAIN:], ends[TRAIN:]),
        answers[TRAIN:],
        num_classes=len(DIGITS),
        sizes={"source_vocab_size": len(words), "target_vocab_size": len(DIGITS)},
        words=words,
        labels=DIGITS,
    )
