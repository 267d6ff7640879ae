"""Every architecture, every variant that the suite covers, every check: from this one place."""

import pytest

import flaxnets
from flaxnets import parity

PAIRS = [(name, variant) for name in flaxnets.names() for variant in parity.variants(name)]


@pytest.mark.parametrize("check", parity.CHECKS)
@pytest.mark.parametrize(("name", "variant"), PAIRS)
def test_parity(name, variant, check):
    """The Flax twin and the torch twin agree."""
    parity.check_architecture(name, variant, [check]).raise_if_failed()


@pytest.mark.parametrize("name", flaxnets.names())
def test_tiny_variant_is_checked(name):
    """Every architecture has a small variant, and the suite covers it and the default."""
    assert {"tiny"} <= parity.variants(name).keys()
