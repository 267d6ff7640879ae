"""Pairs here are a user's, whose code promotes; those of the library are in test_parity.py."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _promotion_as_usual(promoting):
    pass
