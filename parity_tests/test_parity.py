"""Every architecture, every variant that the suite covers, every check: from this one place."""

import jax
import pytest

import flaxnets
from flaxnets import parity
from flaxnets.parity.architectures import MOST_WEIGHTS
from flaxnets.summary import count_parameters

PAIRS = [(name, variant) for name in flaxnets.names() for variant in parity.variants(name)]


def _of_one_worker(pair):
    """A pair whose tests all run where its functions are compiled."""
    name = "-".join(pair)
    return pytest.param(pair, id=name, marks=pytest.mark.xdist_group(name))


@pytest.fixture(scope="module", params=map(_of_one_worker, PAIRS))
def rows(request, strict):
    """The checks of one pair, all on the same compiled functions, which are then forgotten."""
    yield {row.check: row for row in parity.check_architecture(*request.param).rows}
    jax.clear_caches()


@pytest.mark.parametrize("check", parity.CHECKS)
def test_parity(rows, check):
    """The Flax twin and the torch twin agree."""
    parity.Report([rows[check]]).raise_if_failed()


@pytest.mark.xdist_group("one")
def test_groups_are_kept(request):
    """Pytest tells pytest-xdist of groups; else every worker would check every pair."""
    if request.config.getoption("loadgroup", False):
        assert request.node.nodeid.endswith("@one")


@pytest.mark.parametrize("name", flaxnets.names())
def test_tiny_variant_is_checked(name):
    """The suite covers the small variant of every architecture, and a default of usual size."""
    covered = parity.variants(name).keys()
    assert "tiny" in covered
    assert "default" in covered or count_parameters(flaxnets.spec(name)) > MOST_WEIGHTS
