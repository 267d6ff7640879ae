"""Attacks on readers of files: structures that are valid in form and wrong in content.

`FLAXNETS_FUZZ=100` tries a hundred times as many, drawn anew in every run.
"""

import contextlib
import copy
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

TIMES = int(os.environ.get("FLAXNETS_FUZZ", "1"))
ATTACKS = "attack: "  # what the properties that count tries begin with
DEEP = "@deep@"  # in its place stands something that is nested as deep as no parser likes
WRONG = st.sampled_from(
    [
        *(None, True, False, 0, 1, -1, 2, 2**31, -(2**31), 2**63, -(2**63), 2**70, 10**400),
        *(0.5, -0.5, -0.0, 1e-320, 1e308, math.nan, math.inf, -math.inf),
        *("", "x", "1", "nan", "\x1b[31mred\x07", "\u202egnp", "\ud800", "a\nb"),
        *("../../x", "x" * 5000),
        *([], {}, [[]], [None], [0], {"": None}, {"x": {"y": []}}, DEEP),
    ]
).map(copy.deepcopy)


def attack(kind: str, strategy: Any, check: Callable[[Any], None], tries: int, told: Any) -> None:
    """Draw and check so many times; the test fails with the smallest draw that does not hold.

    Args:
        kind: of attack, as the table of all attacks names it.
        strategy: of hypothesis, that draws what `check` is given.
        check: raises where the reader does not hold.
        tries: in a run of the suite.
        told: pytest's `record_property`.
    """
    held = 0

    @hypothesis.settings(
        max_examples=tries * TIMES,
        deadline=None,
        database=None,
        derandomize=TIMES == 1,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def once(drawn: Any) -> None:
        nonlocal held
        check(drawn)
        held += 1

    once()
    told(ATTACKS + kind, held)


@st.composite
def mutated(draw: Any, value: Any) -> str:
    """The text of a JSON value with one to three of its nodes changed.

    A node is replaced, removed, repeated, renamed, put one level deeper, or given a neighbour.
    """
    root = [copy.deepcopy(value)]
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(root))
        parent, key = places[draw(st.integers(0, len(places) - 1))]
        kinds = ["replace", "replace", "remove", "repeat", "deeper", "neighbour", "other"]
        kind = draw(st.sampled_from(kinds))
        if parent is root:
            kind = "replace" if kind in ("remove", "repeat", "neighbour") else kind
        if kind == "replace":
            parent[key] = draw(WRONG)
        elif kind == "remove":
            del parent[key]
        elif kind == "deeper":
            parent[key] = [parent[key]] if draw(st.booleans()) else {"x": parent[key]}
        elif kind == "other":  # the right type in the wrong place
            from_, name = places[draw(st.integers(0, len(places) - 1))]
            parent[key] = copy.deepcopy(from_[name])
        elif isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]) if kind == "repeat" else draw(WRONG))
        else:
            name = draw(st.sampled_from(["", "x", "self", "name", "step", f"{key} ", "\x1b[2J"]))
            parent[name] = parent.pop(key) if kind == "repeat" else draw(WRONG)
    text = json.dumps(root[0])
    return text.replace(f'"{DEEP}"', "[" * 20_000 + "]" * 20_000)


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every node but the outermost, as what holds it and under which key."""
    keys = range(len(node)) if isinstance(node, list) else list(node)
    for key in keys:
        yield node, key
        if isinstance(node[key], list | dict):
            yield from _places(node[key])


@contextlib.contextmanager
def one_line(*kinds: type[Exception]) -> Iterator[None]:
    """Either nothing is wrong, or one of these errors says so in one line for a terminal."""
    try:
        yield
    except kinds as error:
        require_line(str(error))


def require_line(said: str) -> None:
    """A message is one line that a terminal may show, and not a page."""
    assert said.strip(), "an empty message"
    assert said.isprintable(), repr(said)
    assert len(said) < 3000, said


@contextlib.contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Nothing in a folder is made, changed or removed."""
    before = _listing(folder)
    yield
    assert _listing(folder) == before


def _listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        about = path.lstat()
        found[str(path)] = about.st_mode, about.st_size, about.st_mtime_ns
    return found


@contextlib.contextmanager
def memory_below(most: int) -> Iterator[None]:
    """The process takes at most so many bytes more than it has, at any moment."""
    if sys.platform != "linux":
        pytest.skip("the peak of a process's memory is read from Linux's /proc")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _kilobytes("VmRSS")
    yield
    grown = (_kilobytes("VmHWM") - before) * 1024
    assert grown <= most, f"{grown} bytes at the peak, more than {most}"


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
