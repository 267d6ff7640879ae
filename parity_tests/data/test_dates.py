"""Dates in words: what is written is the day that it is to be translated to."""

import datetime
import sys

import numpy as np
import pytest

from flaxnets import data
from flaxnets.data import dates
from flaxnets.specs import END, START


@pytest.fixture(scope="module")
def found():
    """The data set."""
    return data.load("dates")


def pairs(found, part):
    """Source and target texts of one part."""
    tokens, lengths = getattr(found, f"{part}_inputs")
    sources = [
        "".join(found.words[i] for i in row[:n]) for row, n in zip(tokens, lengths, strict=True)
    ]
    targets = getattr(found, f"{part}_targets")
    assert (targets[:, 0] == START).all()
    assert (targets[:, -1] == END).all()
    return sources, ["".join(found.labels[i] for i in row[1:-1]) for row in targets]


def test_sizes(found):
    """10,000 and 1,000 days, all different, of all the years."""
    sources, train = pairs(found, "train")
    _, test = pairs(found, "test")
    assert (len(train), len(test)) == (10_000, 1_000)
    assert len({*train, *test}) == 11_000
    assert {day[:4] for day in train} == {str(year) for year in range(1950, 2051)}
    assert found.num_classes == len(found.labels) == found.sizes["target_vocab_size"]
    assert found.sizes["source_vocab_size"] == len(found.words)
    assert max(map(len, sources)) <= found.train_inputs[0].shape[1]
    assert "<unknown>" not in "".join(sources)
    assert not any(space in "".join(sources) for space in "\u00a0\u202f\t")


@pytest.mark.parametrize("style", ["%A, %B %d, %Y", "%B %d, %Y", "%b %d, %Y"])
def test_english(found, style):
    """The standard library reads in the English dates the day of the target."""
    for part, count in (("train", 10_000), ("test", 1_000)):
        read = 0
        for source, target in zip(*pairs(found, part), strict=True):
            try:
                day = datetime.datetime.strptime(source, style)
            except ValueError:
                continue
            assert day.date().isoformat() == target
            read += 1
        assert 0.6 < read / (count / len(dates.LANGUAGES) / len(dates.STYLES)) < 1.5


def test_every_language(found):
    """Each language has its share: its own word for Sunday."""
    sources, targets = pairs(found, "train")
    for sunday in ["Sonntag", "Sunday", "domingo", "dimanche", "domenica", "zondag", "söndag"]:
        days = [day for text, day in zip(sources, targets, strict=True) if sunday in text]
        assert len(days) > 30
        assert all(datetime.date.fromisoformat(day).weekday() == 6 for day in days)


def test_same_twice(found):
    """The split is the same every time, and does not hang on Babel: the first held-out days."""
    np.testing.assert_array_equal(dates.dates().test_inputs[0], found.test_inputs[0])
    assert pairs(found, "test")[1][:3] == ["2037-07-17", "2029-09-08", "1958-01-13"]


def test_absent_package(monkeypatch):
    """Without Babel, what to install is named."""
    monkeypatch.setitem(sys.modules, "babel.dates", None)
    with pytest.raises(data.DataError, match=r"Babel is not installed; pip install"):
        data.load("dates")
