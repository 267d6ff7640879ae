"""The size in which every network is timed."""

import pytest

import flaxnets
from flaxnets.bench import case
from flaxnets.summary import count_parameters

MOST_WEIGHTS = 50_000_000


@pytest.mark.parametrize("name", flaxnets.names())
def test_sizes(name):
    """Every network is timed in a size that takes less than some seconds a step."""
    assert count_parameters(case.of(name, "flaxnets").spec) <= MOST_WEIGHTS
