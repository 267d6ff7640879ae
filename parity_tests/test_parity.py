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
# They take a program in full optimisation each, and the largest of a form rounds most.
ROUNDING = ("float32", "bfloat16")


def _form(spec, without=None):
    """What a variant is besides its sizes: all that is no number, which numbers are 0, the axes.

    Args:
        spec: of the variant.
        without: fields with this in their names are left out.
    """

    def form(value):
        if isinstance(value, tuple):
            return tuple(map(form, value))
        return value if isinstance(value, bool | str) else value == 0

    names = [field.name for field in dataclasses.fields(spec)]
    fields = (getattr(spec, name) for name in names if without is None or without not in name)
    return tuple(given.axes for given in spec.inputs(1)), *map(form, fields)


def _pairs():
    """The checks of every pair: all but rounding of the smallest of a form, that of the largest."""
    for name in flaxnets.names():
        by_size = sorted(parity.variants(name).items(), key=lambda item: count_parameters(item[1]))
        # Rounding is judged in evaluation, where nothing is dropped.
        largest = {_form(spec, without="dropout"): variant for variant, spec in by_size}
        forms = set()
        for variant, spec in by_size:
            known = _form(spec) in forms or count_parameters(spec) > SMALL
            rounds = variant in largest.values()
            forms.add(_form(spec))
            yield (
                (name, variant),
                tuple(
                    check
                    for check in (OF_SIZE if known else parity.CHECKS)
                    if rounds or check not in ROUNDING
                ),
            )


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
    """The suite makes all checks of every architecture, those of rounding where sums are long."""
    covered = parity.variants(name).keys()
    made = {check for variant in covered for check in PAIRS[name, variant]}
    assert made == parity.CHECKS.keys()
    assert made - {*PAIRS[name, "tiny"]} <= {*ROUNDING}
    assert "default" in covered or count_parameters(flaxnets.spec(name)) > MOST_WEIGHTS
