"""Every architecture, every variant that the suite covers, every check: from this one place."""

import dataclasses
import functools

import jax
import pytest

import flaxnets
from flaxnets import parity
from flaxnets.parity.architectures import MOST_WEIGHTS
from flaxnets.summary import count_parameters

SMALL = 100_000  # weights
# What larger sizes may change is how sums are rounded; `flaxnets parity` makes all checks of a
# larger variant, too.
OF_SIZE = ("forward", "gradients", "float32", "bfloat16")


def _form(spec):
    """What a variant is besides its sizes: all that is no number, which numbers are 0, the axes."""

    def form(value):
        if isinstance(value, tuple):
            return tuple(map(form, value))
        return value if isinstance(value, bool | str) else value == 0

    axes = tuple(given.axes for given in spec.inputs(1))
    return axes, *(form(getattr(spec, field.name)) for field in dataclasses.fields(spec))


def _pairs():
    """The checks of every pair: all of the smallest of a form."""
    for name in flaxnets.names():
        forms = set()
        for variant, spec in sorted(
            parity.variants(name).items(), key=lambda item: count_parameters(item[1])
        ):
            known = _form(spec) in forms or count_parameters(spec) > SMALL
            yield (name, variant), OF_SIZE if known else tuple(parity.CHECKS)
            forms.add(_form(spec))


PAIRS = dict(_pairs())


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
