"""Matching of weights and layers that do not have the same names."""

import torch
from flax import nnx

from flaxnets import layers
from flaxnets.parity.diagnosis.alignment import kind, match

RNGS = nnx.Rngs(0)


def test_numbered_layers():
    """A layer that one side lacks moves the numbers of those behind it; order and shape hold."""
    flax = nnx.Sequential(layers.Linear(5, 4, rngs=RNGS), layers.Linear(4, 2, rngs=RNGS))
    twin = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    found = match(flax, twin)
    assert found.weights["1.weight"] == "2.weight"
    assert found.modules["1"] == "2"
    assert not found.missing
    assert not found.extra


def test_missing_and_transposed():
    """What has no counterpart is listed; a weight with its axes interchanged is found."""

    class Flax(nnx.Module):
        def __init__(self):
            self.weight = nnx.Param(nnx.initializers.ones(None, (2, 3)))

    twin = torch.nn.Linear(2, 3)
    found = match(Flax(), twin)
    assert found.transposed == ["weight"]
    assert found.missing == {"bias": (3,)}


def test_kinds():
    """Layers are alike whatever their dimensions are called."""
    assert kind(torch.nn.Conv2d(1, 1, 1)) == kind(nnx.Conv(1, 1, (1, 1), rngs=RNGS))
    assert kind(torch.nn.Embedding(2, 2)) == kind(nnx.Embed(2, 2, rngs=RNGS))
