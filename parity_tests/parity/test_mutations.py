"""Planted faults: each is caught by the check that it names, and every check catches one."""

import pytest

from flaxnets import parity
from flaxnets.parity.mutations import MUTATIONS


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_caught(mutation):
    """The check fails while the fault is there, with a place and an error above the bound."""
    (row,) = mutation.run().rows
    assert row.check == mutation.check
    assert not row.passed, f"{mutation.name} survived {mutation.check}"
    assert row.error > row.bound
    assert row.worst


def test_every_check_catches_something():
    """No check is there that nothing has been shown to fail."""
    assert {mutation.check for mutation in MUTATIONS} == set(parity.CHECKS)
