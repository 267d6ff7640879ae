"""`layers.Conv1d` to `Conv3d` against torch.nn's, over their options."""

import itertools

import pytest
import torch
from flax import nnx

from flaxnets import layers, parity
from flaxnets.specs import Input

AXES = {1: "blc", 2: "bhwc", 3: "bdhwc"}
SIZES = {1: (2, 11, 4), 2: (2, 9, 8, 4), 3: (2, 7, 6, 5, 4)}
GRID = [
    {"kernel_size": 3, "stride": s, "padding": p, "dilation": d, "groups": g, "bias": b}
    for s, p, d, g, b in itertools.product((1, 2), (0, 1, "same"), (1, 2), (1, 2), (True, False))
    if not (p == "same" and s > 1)
]
MODES = [
    {"kernel_size": 4, "padding": p, "padding_mode": m, "dilation": d}
    for p, m, d in itertools.product(("same", 1), ("reflect", "replicate", "circular"), (1,))
]


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("options", GRID + MODES, ids=str)
def test_conv(dims, options):
    """Flax and torch agree in outputs, gradients and the bits of the weights."""
    kind = f"Conv{dims}d"
    parity.check(
        getattr(layers, kind)(4, 6, **options, rngs=nnx.Rngs(0)),
        getattr(torch.nn, kind)(4, 6, **options),
        [Input(name="x", shape=SIZES[dims], axes=AXES[dims])],
        ["forward", "gradients", "round_trip"],
    ).raise_if_failed()


@pytest.mark.parametrize("groups", [1, 2])
def test_initialisation(groups):
    """Fresh weights of Flax and torch come from one distribution."""

    def create(seed):
        torch.manual_seed(seed)
        return torch.nn.Conv2d(4, 6, 3, groups=groups)

    parity.check(
        lambda seed: layers.Conv2d(4, 6, 3, groups=groups, rngs=nnx.Rngs(seed)),
        create,
        [Input(name="x", shape=SIZES[2], axes=AXES[2])],
        ["initialisation"],
    ).raise_if_failed()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 3}, "in_channels 4 is not a multiple of groups 3"),
        ({"stride": 2, "padding": "same"}, "padding 'same' needs stride 1, not 2"),
        ({"stride": (1, 1, 1)}, r"stride \(1, 1, 1\) has 3 entries; use 1 or 2"),
        ({"padding_mode": "mirror"}, "padding_mode 'mirror' is unknown"),
    ],
)
def test_wrong_options(options, message):
    """Each wrong option is named with its value."""
    with pytest.raises(ValueError, match=message):
        layers.Conv2d(4, 6, 3, **options, rngs=nnx.Rngs(0))
