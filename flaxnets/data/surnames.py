"""Surnames by language, spelled in the 57 characters of a classic lesson.

Axes: n names, t time.
"""

import string
import unicodedata

import numpy as np

from flaxnets.data.dataset import Dataset, hold_out
from flaxnets.data.packaged import package
from flaxnets.data.vocabulary import lengths, pad

CHARACTERS = string.ascii_letters + " .,;'"
# By Faker's locale.
LANGUAGES = {
    "hr_HR": "Croatian",
    "nl_NL": "Dutch",
    "en_US": "English",
    "et_EE": "Estonian",
    "fi_FI": "Finnish",
    "fr_FR": "French",
    "de_DE": "German",
    "it_IT": "Italian",
    "es_ES": "Spanish",
    "sv_SE": "Swedish",
}
# Letters that are not a plain letter with a mark.
ROMAN = str.maketrans("đðøłĐÐØŁ-", "ddolDDOL ") | str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "þ": "th", "Æ": "Ae", "Œ": "Oe", "Þ": "Th"}
)


def surnames() -> Dataset:
    """About 6,500 surnames of 10 languages, from Faker; a fifth of every language held out.

    A name that is at home in several languages is left out, so that every name has one answer.
    The tokens are 0 to 56, one a character, and none is set apart for what is behind the end
    of a name: the lengths say where it is.
    """
    found = {
        language: {romanised(name) for name in _last_names(locale)}
        for locale, language in LANGUAGES.items()
    }
    names, labels = [], []
    for label, own in enumerate(found.values()):
        others = set().union(*(other for other in found.values() if other is not own))
        names += sorted(own - others)
        labels += [label] * len(own - others)
    rows = [[CHARACTERS.index(character) for character in name] for name in names]
    targets = np.array(labels, np.int32)
    tokens, ends = pad(rows, max(map(len, rows))), lengths(rows)
    held_out = hold_out(targets, 0.2)
    return Dataset(
        "surnames",
        (tokens[~held_out], ends[~held_out]),
        targets[~held_out],
        (tokens[held_out], ends[held_out]),
        targets[held_out],
        num_classes=len(LANGUAGES),
        sizes={"n_classes": len(LANGUAGES)},
        words=tuple(CHARACTERS),
        labels=tuple(LANGUAGES.values()),
    )


def romanised(name: str) -> str:
    """A name without marks, in the 57 characters; what is not of them is left out.

    >>> romanised("Müller-Đurić, van")
    'Muller Duric, van'
    """
    plain = unicodedata.normalize("NFKD", name.translate(ROMAN))
    return "".join(character for character in plain if character in CHARACTERS).strip()


def _last_names(locale: str) -> list[str]:
    module = package(f"faker.providers.person.{locale}", "Faker")
    return list(module.Provider.last_names)  # of a mapping to weights, its keys
