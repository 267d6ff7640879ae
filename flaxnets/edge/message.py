"""How errors name what comes from files: one line, ten items at most, nothing a terminal obeys."""

from collections.abc import Iterable

MOST = 10  # items that an error names
LONGEST = 200  # characters of one name


def printable(text: object, longest: int = LONGEST) -> str:
    r"""A text from a file as a terminal may show it: control characters escaped, and cut.

    Args:
        text: of any kind and length.
        longest: how many characters are shown; of a longer text its two ends.

    >>> printable("a\x1b[31mb\n"), printable("0123456789", 6)
    ('a\\x1b[31mb\\n', '012...789')
    """
    said = str(text)
    if len(said) > longest:
        said = f"{said[: longest // 2]}...{said[-(longest // 2) :]}"
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in said
    )


def some(things: Iterable[object], separator: str = ", ", most: int = MOST) -> str:
    """The first few of them, printable, and how many more there are.

    >>> some(["a", "b", "c", "d"], most=2)
    'a, b and 2 more'
    """
    there = list(things)
    named = separator.join(printable(thing) for thing in there[:most])
    return f"{named} and {len(there) - most} more" if len(there) > most else named
