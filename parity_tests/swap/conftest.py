"""Scripts, optimizers and modules here are a user's; what is translated promotes as torch does."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _promotion_as_usual(promoting):
    pass
