"""What cannot be translated, and where it stands."""

import linecache
from collections.abc import Sequence
from typing import NamedTuple


class Problem(NamedTuple):
    """A place in the user's code that cannot be translated."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        text = linecache.getline(self.file, self.line).strip()
        return f"{self.file}:{self.line}: {self.reason}" + (f": {text}" if text else "")


class TranslationError(ValueError):
    """A module that has no twin; the message, one line, lists every place or says what failed.

    Attributes:
        problems: the places.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__("; ".join([message, *map(str, problems)]))
        self.problems = tuple(problems)
