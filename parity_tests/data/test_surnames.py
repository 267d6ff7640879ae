"""Surnames by language: spelled in the 57 characters, each with one answer."""

import sys
import unicodedata

import numpy as np
import pytest

from flaxnets import data
from flaxnets.data import surnames


def spelled(inputs):
    """The names that tokens mean."""
    return [
        "".join(surnames.CHARACTERS[i] for i in row[:n]) for row, n in zip(*inputs, strict=True)
    ]


def test_names():
    """Ten languages, a fifth of each held out, no name twice, in the part of its language."""
    found = data.load("surnames")
    train, test = spelled(found.train_inputs), spelled(found.test_inputs)
    assert len(surnames.CHARACTERS) == 57
    assert len(train) + len(test) > 6000
    assert len(set(train + test)) == len(train) + len(test)
    held_out = np.bincount(found.test_targets) / (
        np.bincount(found.train_targets) + np.bincount(found.test_targets)
    )
    np.testing.assert_allclose(held_out, 0.2, atol=0.01)
    assert found.num_classes == len(found.labels) == len(held_out) == 10
    labels = dict(zip(train + test, [*found.train_targets, *found.test_targets], strict=True))
    for name, language in (
        ("Abramovic", "Croatian"),
        ("Geissler", "German"),
        ("Aasmae", "Estonian"),
        ("Virtanen", "Finnish"),
        ("van Leuven", "Dutch"),
    ):
        assert found.labels[labels[name]] == language
    assert "Martin" not in labels  # French, English, Spanish


def test_lengths():
    """Behind the end of a name is nothing, and the longest is as long as the array."""
    found = data.load("surnames")
    lengths = np.concatenate([found.train_inputs[1], found.test_inputs[1]])
    assert lengths.min() >= 1
    assert lengths.max() == found.train_inputs[0].shape[1] == found.test_inputs[0].shape[1]
    for tokens, ends in (found.train_inputs, found.test_inputs):
        assert not tokens[np.arange(tokens.shape[1]) >= ends[:, None]].any()
        assert tokens.max() < 57


@pytest.mark.parametrize("locale", surnames.LANGUAGES)
def test_romanised(locale):
    """Without marks a name has the letters that Unicode's own names of them give."""
    for name in surnames._last_names(locale):
        plain = [
            unicodedata.name(letter).split(" WITH ")[0]
            for letter in unicodedata.normalize("NFC", name)
            if letter.isalpha() and letter != "ß"
        ]
        roman = surnames.romanised(name.replace("ß", ""))
        assert [unicodedata.name(letter) for letter in roman if letter.isalpha()] == plain


def test_same_twice():
    """The split is the same every time."""
    first, second = surnames.surnames(), surnames.surnames()
    np.testing.assert_array_equal(first.test_inputs[0], second.test_inputs[0])


def test_absent_package(monkeypatch):
    """Without Faker, what to install is named."""
    monkeypatch.setitem(sys.modules, "faker.providers.person.hr_HR", None)
    with pytest.raises(data.DataError, match=r"Faker is not installed; pip install"):
        data.load("surnames")
