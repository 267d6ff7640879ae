"""Every architecture, every variant that the suite covers, every check: from this one place."""

import pytest

import flaxnets
from flaxnets import parity
from flaxnets.parity.architectures import MOST_WEIGHTS
from flaxnets.summary import count_parameters

PAIRS = [(name, variant) for name in flaxnets.names() for variant in parity.variants(name)]


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def rows(request):
    """The checks of one pair, all on the same compiled functions."""
    return {row.check: row for row in parity.check_architecture(*request.param).rows}


@pytest.mark.parametrize("check", parity.CHECKS)
def test_parity(rows, check):
    """The Flax twin and the torch twin agree."""
    parity.Report([rows[check]]).raise_if_failed()


@pytest.mark.parametrize("name", flaxnets.names())
def test_tiny_variant_is_checked(name):
    """The suite covers the small variant of every architecture, and a default of usual size."""
    covered = parity.variants(name).keys()
    assert "tiny" in covered
    assert "default" in covered or count_parameters(flaxnets.spec(name)) > MOST_WEIGHTS
