"""`layers.Linear` and `Bilinear` against torch.nn's: outputs, gradients, weights, their start."""

import pytest
import torch
from flax import nnx

from flaxnets import layers, parity
from flaxnets.specs import Input


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 7), (7,)])
def test_linear(shape, bias):
    """Flax and torch agree on batches, sequences and single vectors."""
    parity.check(
        lambda seed: layers.Linear(7, 4, bias, rngs=nnx.Rngs(seed)),
        lambda seed: _seeded(seed, lambda: torch.nn.Linear(7, 4, bias)),
        [Input(name="x", shape=shape, axes="btf"[3 - len(shape) :])],
        ["forward", "gradients", "round_trip", "initialisation"],
    ).raise_if_failed()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(5,), (2, 3)])
def test_bilinear(batch, bias):
    """Flax and torch agree on batches and sequences."""
    axes = "btf" if len(batch) == 2 else "bf"
    parity.check(
        lambda seed: layers.Bilinear(7, 5, 4, bias, rngs=nnx.Rngs(seed)),
        lambda seed: _seeded(seed, lambda: torch.nn.Bilinear(7, 5, 4, bias)),
        [
            Input(name="input1", shape=(*batch, 7), axes=axes),
            Input(name="input2", shape=(*batch, 5), axes=axes),
        ],
        ["forward", "gradients", "round_trip", "initialisation"],
    ).raise_if_failed()


def test_wrong_options():
    """A wrong option is named with its value."""
    with pytest.raises(ValueError, match="in1_features 0 is too small; use 1 or more"):
        layers.Bilinear(0, 5, 4, rngs=nnx.Rngs(0))


def _seeded(seed, create):
    torch.manual_seed(seed)
    return create()
