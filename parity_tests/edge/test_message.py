"""What errors name is what a terminal may show."""

import pytest

from flaxnets.edge.message import LONGEST, printable, some


@pytest.mark.parametrize("text", ["\x1b]0;x\x07", "a\r\nb", "\u202egnp.exe", "\x9b2J", "\ud800"])
def test_nothing_a_terminal_obeys(text):
    """Control characters, those that turn the direction of writing, and halves of a character."""
    assert printable(text).isprintable()
    printable(text).encode()
    assert printable(text) == text.encode("unicode_escape").decode()


def test_what_is_harmless_stays():
    """Letters of any script are shown as they are."""
    assert printable("größe 大小 \N{PILE OF POO}") == "größe 大小 \N{PILE OF POO}"


def test_long_texts_keep_their_ends():
    """The two ends of a long text, and no more than was asked for."""
    said = printable("a" * 10**6 + "z")
    assert (len(said), said[-1]) == (LONGEST + 3, "z")


def test_ten_items():
    """Ten are named, the others counted."""
    assert some(map(str, range(11))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1 more"
    assert some("ab", "; ") == "a; b"
