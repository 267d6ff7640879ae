"""`layers.Flatten` against torch.nn.Flatten."""

import pytest
import torch

from flaxnets import layers, parity
from flaxnets.specs import Input


@pytest.mark.parametrize(
    ("shape", "axes"), [((2, 3), "bf"), ((2, 4, 5, 3), "bhwc"), ((2, 2, 4, 5, 3), "bdhwc")]
)
def test_flatten(shape, axes):
    """Flax and torch put features in the same order."""
    parity.check(
        layers.Flatten(),
        torch.nn.Flatten(),
        [Input(name="x", shape=shape, axes=axes)],
        ["forward", "gradients"],
    ).raise_if_failed()
