"""Translations say what torch's code says, and torch broadcasts ranks and promotes dtypes."""

import jax
import pytest


@pytest.fixture(autouse=True)
def _promotion_as_in_torch():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
