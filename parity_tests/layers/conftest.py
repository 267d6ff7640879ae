"""Layers compute for users who forbid implicit promotion, too."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_promoted(strict):
    pass
