"""`layers.Linear` against torch.nn.Linear: outputs, gradients, weights and their distribution."""

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


def _seeded(seed, create):
    torch.manual_seed(seed)
    return create()
