"""Every architecture, every variant that the suite covers, every check: from this one place."""

import functools

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


@functools.lru_cache(maxsize=1)
def _rows(pair):
    """The checks of one pair, all on the same compiled functions; those before are forgotten."""
    jax.clear_caches()
    return {row.check: row for row in parity.check_architecture(*pair, PAIRS[pair]).rows}


def _of_one_worker():
    """Every check; those of a pair run where its functions are compiled."""
    for pair, checks in PAIRS.items():
        name = "-".join(pair)
        group = pytest.mark.xdist_group(name)
        yield from (
            pytest.param(pair, check, id=f"{name}-{check}", marks=group) for check in checks
        )


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(("pair", "check"), list(_of_one_worker()))
def test_parity(pair, check):
    """The Flax twin and the torch twin agree."""
    parity.Report([_rows(pair)[check]]).raise_if_failed()


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
