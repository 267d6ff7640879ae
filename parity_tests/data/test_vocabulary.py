"""Vocabularies: what is encoded reads as it was, but for words that are unknown."""

from hypothesis import given, settings
from hypothesis import strategies as st

from flaxnets.data import vocabulary
from flaxnets.specs import PAD, UNKNOWN


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=7), min_size=1, max_size=5), st.integers(1, 3))
def test_there_and_back(texts, least):
    """A word that is frequent enough comes back, any other is UNKNOWN; behind the end is PAD."""
    words = vocabulary.vocabulary(texts, least)
    rows = vocabulary.encode(texts, words)
    tokens, lengths = vocabulary.pad(rows, 7), vocabulary.lengths(rows)
    together = "".join(texts)
    for text, row, length in zip(texts, tokens, lengths, strict=True):
        assert length == len(text)
        assert (row[length:] == PAD).all()
        for character, token in zip(text, row, strict=False):
            if together.count(character) < least:
                assert token == UNKNOWN
            else:
                assert words[token] == character


def test_order():
    """The special tokens have the numbers that specs give them; frequent words come first."""
    words = vocabulary.vocabulary([["b", "a", "c", "c"]])
    assert words == ("<pad>", "<start>", "<end>", "<unknown>", "<mask>", "c", "a", "b")
    assert words.index("<pad>") == PAD
    assert words.index("<unknown>") == UNKNOWN
