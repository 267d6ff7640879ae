"""Every architecture, every variant that the suite covers, every check: from this one place."""

import jax
import pytest

import flaxnets
from flaxnets import parity
from flaxnets.parity.architectures import MOST_WEIGHTS
from flaxnets.summary import count_parameters

SMALL = 100_000  # weights
# A larger variant is the same function with larger sizes, which may change how sums are rounded;
# `flaxnets parity` makes all checks of it, too.
OF_SIZE = ("forward", "gradients", "float32", "bfloat16")


def _checks(spec):
    return tuple(parity.CHECKS) if count_parameters(spec) <= SMALL else OF_SIZE


PAIRS = {
    (name, variant): _checks(spec)
    for name in flaxnets.names()
    for variant, spec in parity.variants(name).items()
}


@pytest.fixture(scope="module")
def rows(request, strict):
    """The checks of one pair, all on the same compiled functions, which are then forgotten."""
    pair = request.param
    report = parity.check_architecture(*pair, PAIRS[pair])
    yield {row.check: row for row in report.rows}
    jax.clear_caches()


def _of_one_worker():
    """Every check; those of a pair run where its functions are compiled."""
    for pair, checks in PAIRS.items():
        name = "-".join(pair)
        for check in checks:
            group = pytest.mark.xdist_group(name)
            yield pytest.param(pair, check, id=f"{name}-{check}", marks=group)


@pytest.mark.parametrize(("rows", "check"), list(_of_one_worker()), indirect=["rows"])
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
    """The suite makes all checks of a small variant of every architecture, some of its default."""
    covered = parity.variants(name).keys()
    assert PAIRS[name, "tiny"] == tuple(parity.CHECKS)
    assert "default" in covered or count_parameters(flaxnets.spec(name)) > MOST_WEIGHTS
