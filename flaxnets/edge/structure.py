"""JSON that somebody else may have written, validated into a type by pydantic or refused."""

import functools
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from flaxnets.edge.message import printable, some

T = TypeVar("T")
SHOWN = 60  # characters of a value
WORDS = {"missing": "is missing", "unexpected_keyword_argument": "is unknown"}


class StructureError(ValueError):
    """JSON that is not what it should be; the message is one line."""


def parse(kind: type[T], content: bytes | str, where: object) -> T:
    """Read JSON as a type, without turning one kind of value into another.

    Args:
        kind: whatever pydantic validates: a dataclass, whose `__pydantic_config__` may forbid
            what it has no field for, a TypedDict, `dict[str, float]`.
        content: UTF-8, of any depth.
        where: it is from, for the error.

    Raises:
        StructureError: no JSON, or another structure, type or range, with the places.

    >>> parse(dict[str, tuple[int, ...]], '{"a": [1, 2]}', "a.json")
    {'a': (1, 2)}
    >>> parse(dict[str, int], '{"a": "1"}', "a.json")
    Traceback (most recent call last):
    ...
    flaxnets.edge.structure.StructureError: a.json: a should be a valid integer, not "1"
    """
    try:
        return _adapter(cast(Any, kind)).validate_json(content, strict=True)
    except ValidationError as error:
        said = some(map(_said, error.errors(include_url=False, include_context=False)), "; ")
        raise StructureError(f"{printable(where)}: {said}") from None


@functools.cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)


def _said(error: Any) -> str:
    place = ".".join(map(str, error["loc"]))
    if error["type"] == "json_invalid":
        return error["msg"].replace("Invalid JSON:", "not JSON:")
    if error["type"] in WORDS:
        return f"{printable(place, SHOWN)} {WORDS[error['type']]}"
    wanted = error["msg"].removeprefix("Input ").removeprefix("Value error, ")
    found = error["input"]
    shown = f'"{printable(found, SHOWN)}"' if isinstance(found, str) else printable(found, SHOWN)
    return f"{printable(place, SHOWN)} {wanted}, not {shown}".strip()
