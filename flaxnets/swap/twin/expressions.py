"""Pieces of Python text: expressions with their precedence, literals, and lines that fit."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flaxnets.swap.twin.layouts import Layout

WIDTH = 100
# How tightly an expression binds, from loose to tight.
CHOICE, COMPARE, OR, XOR, AND, SUM, TERM, UNARY, POWER, ATOM = range(10)


@dataclass(frozen=True)
class Expr:
    """Python text that gives a value.

    Attributes:
        text: of the expression.
        layout: of the array that it gives, or of each in a tuple.
        rank: how tightly it binds.
        names: of the variables that it reads.
        draws: whether evaluating it draws random numbers or changes a state.
    """

    text: str
    layout: Layout = None
    rank: int = ATOM
    names: frozenset[str] = field(default_factory=frozenset)
    draws: bool = False

    def within(self, rank: int) -> str:
        """The text, in parentheses where what is around it binds more tightly.

        >>> Expr("a + b", rank=SUM).within(TERM), Expr("a + b", rank=SUM).within(SUM)
        ('(a + b)', 'a + b')
        """
        return self.text if self.rank >= rank else f"({self.text})"


def literal(value: Any) -> Expr:
    """A constant as Python text.

    >>> literal(float("-inf")).text, literal((1, 2.5)).text
    ('-jnp.inf', '(1, 2.5)')
    """
    if isinstance(value, float) and not math.isfinite(value):
        text = "jnp.nan" if math.isnan(value) else "jnp.inf" if value > 0 else "-jnp.inf"
    elif isinstance(value, tuple | list):
        inner = ", ".join(literal(entry).text for entry in value)
        if isinstance(value, list):
            return Expr(f"[{inner}]")
        return Expr(f"({inner},)" if len(value) == 1 else f"({inner})")
    elif isinstance(value, str):
        text = '"' + repr(value)[1:-1].replace("\\'", "'").replace('"', '\\"') + '"'
    elif isinstance(value, bool | int | float | None | slice) or value is ...:
        text = "..." if value is ... else repr(value)
    else:
        raise TypeError(f"no literal of type {type(value).__name__}")
    return Expr(text, rank=UNARY if text.startswith("-") else ATOM)


def split(text: str) -> list[str]:
    """The parts of a text between the commas that are in no bracket.

    >>> split("a, f(b, c), 'd, e'")
    ['a', 'f(b, c)', "'d, e'"]
    """
    parts, depth, start, quote = [], 0, 0, ""
    for index, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    return [part for part in [*parts, text[start:].strip()] if part]


def _last_bracket(text: str) -> tuple[int, int] | None:
    """Where the last bracket of the outermost level opens and closes, if it is not empty."""
    depth, opened, found, quote = 0, 0, None, ""
    for index, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "([{":
            opened = index if depth == 0 else opened
            depth += 1
        elif letter in ")]}":
            depth -= 1
            if depth == 0 and index > opened + 1:
                found = (opened, index)
    return found


def wrapped(text: str, indent: int) -> list[str]:
    """A statement in lines that fit, split as ruff splits them.

    >>> wrapped("x = f(a, b)", 4)
    ['    x = f(a, b)']
    """
    pad = " " * indent
    if len(pad + text) > WIDTH and text.startswith("return ") and len(split(text[7:])) > 1:
        text = f"return ({text[7:].rstrip(',')},)"
    if len(pad + text) <= WIDTH or (bracket := _last_bracket(text)) is None:
        return [pad + text]
    opened, closed = bracket
    head, inner, tail = text[: opened + 1], text[opened + 1 : closed], text[closed:]
    if len(pad + text[: opened + 1]) > WIDTH and tail[1:] == "":
        return [pad + text]
    parts = split(inner)
    comma = inner.rstrip().endswith(",")
    if len(pad) + 4 + len(inner) <= WIDTH and not (comma and len(parts) > 1):
        return [pad + head, pad + "    " + inner, pad + tail]
    if len(parts) == 1 and not comma:
        return [pad + head, *wrapped(parts[0], indent + 4), pad + tail]
    body: list[str] = []
    for part in parts:
        lines = wrapped(part, indent + 4)
        body += [*lines[:-1], lines[-1] + ","]
    return [pad + head, *body, pad + tail]


NUMBER = re.compile(r"(?<![\w.])(\d+\.\d+(?:e-?\d+)?|\d+e-?\d+|\d+|True|False)(?![\w.])")


def chosen(evaluation: Sequence[str], training: Sequence[str]) -> list[str] | None:
    """Statements of both modes as one; None where they differ in more than numbers.

    >>> chosen(["x = f(x, 0.0)"], ["x = f(x, 0.5)"])
    ['x = f(x, 0.0 if self.deterministic else 0.5)']
    """
    if len(evaluation) != len(training):
        return None
    merged = []
    for one, other in zip(evaluation, training, strict=True):
        pieces, others = NUMBER.split(one), NUMBER.split(other)
        if pieces[::2] != others[::2]:
            return None
        text = pieces[0]
        for index in range(1, len(pieces), 2):
            piece, after = pieces[index], pieces[index + 1]
            if piece != others[index]:
                piece = f"{piece} if self.deterministic else {others[index]}"
                alone = text.endswith(("(", ", ", "=")) and after[:1] in (")", ",")
                piece = piece if alone else f"({piece})"
            text += piece + after
        merged.append(text)
    return merged
