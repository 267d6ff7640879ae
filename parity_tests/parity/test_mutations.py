"""Planted faults: each is caught by the check that it names, at its place."""

import contextlib

import pytest

from flaxnets import parity
from flaxnets.parity import mutations
from flaxnets.parity.mutations import MUTATIONS
from flaxnets.parity.mutations.mutation import Caught


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_caught(mutation):
    """The check fails while the fault is there, and the report points at it and at its cause."""
    caught = mutation.run()
    assert caught.by == mutation.check
    assert caught.place == mutation.place, f"{mutation.name} survived, or is seen elsewhere"
    assert mutation.cause in caught.cause
    assert caught.caught


def test_every_check_catches_something():
    """No check is there that nothing has been shown to fail."""
    assert {mutation.check for mutation in MUTATIONS} == set(parity.CHECKS)


def test_enough_of_them():
    """At least 50 faults, each with its own name."""
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 50


def test_survivor_is_counted():
    """A run counts what was caught; a fault that changes nothing is none."""
    harmless = mutations.Mutation(
        "none", "forward", contextlib.nullcontext, "fc1", architecture="gelu"
    )
    (found,) = mutations.run_all(mutations=[harmless])
    assert not found.caught
    caught = Caught("a", True, "forward", "fc1", "no bias")
    assert mutations.score([found, caught]) == {
        "mutations": [
            {"name": "none", "caught": False, "by": None},
            {"name": "a", "caught": True, "by": "forward at fc1"},
        ],
        "score": "1 of 2",
    }
