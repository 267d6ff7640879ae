"""JSON is the type that it has to be, to the letter, or one line says where it is not."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from flaxnets.edge.structure import StructureError, parse
from parity_tests.fuzz import mutated, one_line


@dataclass(frozen=True, kw_only=True)
class Sample:
    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    count: int
    rate: float = 0.5
    sizes: tuple[int, ...] = ()
    inner: dict[str, float | None] = field(default_factory=dict)


def test_right():
    """What fits becomes the dataclass: lists are tuples, integers are real numbers."""
    found = parse(Sample, b'{"count": 3, "rate": 1, "sizes": [1, 2], "inner": {"a": null}}', "f")
    assert found == Sample(count=3, rate=1.0, sizes=(1, 2), inner={"a": None})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"count": "3"}', 'f: count should be a valid integer, not "3"'),
        ('{"count": 3.0}', "f: count should be a valid integer, not 3.0"),
        ('{"count": true}', "f: count should be a valid integer, not True"),
        ("{}", "f: count is missing"),
        ('{"count": 1, "more": 2}', "f: more is unknown"),
        ('{"count": 1, "rate": NaN}', "f: rate should be a finite number, not nan"),
        ('{"count": 1, "sizes": [1, {}]}', "f: sizes.1 should be a valid integer, not {}"),
        ("[]", "f: should be an object, not []"),
        ("", "f: not JSON: EOF while parsing a value at line 1 column 0"),
        pytest.param("[" * 10**5, "f: not JSON: recursion limit exceeded", id="deep"),
    ],
)
def test_wrong(text, said):
    """Place, what would be right, and what is there."""
    with pytest.raises(StructureError) as caught:
        parse(Sample, text, "f")
    assert str(caught.value).partition(" at line")[0] == said.partition(" at line")[0]


def test_any_structure(attack):
    """Mutated in structure: the type, or one line."""
    good = {"count": 3, "rate": 0.5, "sizes": [1, 2], "inner": {"a": 0.5, "b": None}}

    def check(text):
        with one_line(StructureError):
            assert isinstance(parse(Sample, text, "f").count, int)

    attack("JSON into a dataclass", mutated(good), check, 100)
