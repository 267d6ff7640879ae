"""JSON that somebody else may have written, validated into a type by pydantic or refused."""

import functools
import math
from collections.abc import Mapping
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
        raise _refused(error, where) from None


def require(kind: type[T], value: Any, where: object) -> T:
    """The same for a value that JSON has already been read into.

    >>> require(list[int], [1, 2], "a.json")
    [1, 2]
    """
    try:
        return _adapter(cast(Any, kind)).validate_python(value, strict=True)
    except ValidationError as error:
        raise _refused(error, where) from None


def require_alike(given: Any, own: Any, where: str) -> None:
    """Require of JSON that it has the keys, lengths and kinds of values that another has.

    Args:
        given: from somebody else.
        own: as it has to be; what is a number has to be one, and finite.
        where: it is from, for the error.

    Raises:
        StructureError: the first place that differs.

    >>> require_alike({"a": [1, True]}, {"a": [2.5, False]}, "rest")
    >>> require_alike({"a": [1, True]}, {"a": [2.5, 3]}, "rest")
    Traceback (most recent call last):
    ...
    flaxnets.edge.structure.StructureError: rest.a.1 is True, not a number
    """
    if isinstance(own, Mapping) and isinstance(given, Mapping):
        for key in own.keys() | given.keys():
            if key not in own or key not in given:
                is_ = "missing" if key in own else "unknown"
                raise StructureError(f"{where}.{printable(key, SHOWN)} is {is_}")
            require_alike(given[key], own[key], f"{where}.{key}")
    elif isinstance(own, list | tuple) and isinstance(given, list | tuple):
        if len(own) != len(given):
            raise StructureError(f"{where} has {len(given)} entries, not {len(own)}")
        for number, (one, wanted) in enumerate(zip(given, own, strict=True)):
            require_alike(one, wanted, f"{where}.{number}")
    elif (wanted := _kind(own)) != _kind(given):
        raise StructureError(f"{where} is {printable(given, SHOWN)}, not {wanted}")


def _kind(value: Any) -> str:
    if isinstance(value, float | int) and not isinstance(value, bool) and abs(value) < math.inf:
        return "a number"
    kinds = {str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), type(value).__name__)


@functools.cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)


def _refused(error: ValidationError, where: object) -> StructureError:
    said = some(map(_said, error.errors(include_url=False, include_context=False)), "; ")
    return StructureError(f"{printable(where)}: {said}")


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
