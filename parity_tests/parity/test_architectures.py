"""Which variants the suite covers, and checks with fields of one's own."""

import pytest

import flaxnets
from flaxnets import parity, specs
from flaxnets.parity import architectures


def test_large_variants_are_left_to_their_users(monkeypatch):
    """A variant above the limit is not run; the limit is on parameters."""
    monkeypatch.setattr(architectures, "MOST_WEIGHTS", 100_000)
    assert "default" not in parity.variants("mlp")
    assert "tiny" in parity.variants("mlp")


def test_overrides():
    """A user's own sizes are checked as the named ones are."""
    report = parity.check_architecture("mlp", "tiny", ["forward"], num_classes=4)
    report.raise_if_failed()


def test_unknown():
    """Unknown names are refused."""
    with pytest.raises(specs.SpecError, match="architecture 'alexnet' is unknown"):
        parity.check_architecture("alexnet")
    assert "alexnet" not in flaxnets.names()
