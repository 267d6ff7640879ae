"""The padding layers against torch.nn's: even, uneven and negative paddings."""

import jax.numpy as jnp
import pytest
import torch

from flaxnets import layers, parity
from flaxnets.specs import Input

AXES = {1: "blc", 2: "bhwc", 3: "bdhwc"}
SIZES = {1: (2, 6, 3), 2: (2, 5, 6, 3), 3: (2, 4, 5, 6, 3)}
UNEVEN = (1, 2, 3, 0, 2, 1)
CROPS = (-1, 2, 3, -2, -1, -1)
KINDS = {"Zero": (), "Constant": (1.5,), "Reflection": (), "Replication": (), "Circular": ()}


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("padding", [2, UNEVEN, CROPS], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_pad(kind, padding, dims):
    """Flax and torch agree in outputs and gradients."""
    name = f"{kind}Pad{dims}d"
    options = (padding if isinstance(padding, int) else padding[: 2 * dims], *KINDS[kind])
    parity.check(
        getattr(layers, name)(*options),
        getattr(torch.nn, name)(*options),
        [Input(name="x", shape=SIZES[dims], axes=AXES[dims])],
        ["forward", "gradients"],
    ).raise_if_failed()


@pytest.mark.parametrize(
    ("kind", "padding"),
    [
        ("Reflection", (5, 5)),
        ("Reflection", (-2, 5)),  # mirrors pixels that are themselves taken off
        ("Replication", (0, 9)),
        ("Circular", (6, 6)),
        ("Circular", (-2, 4)),
    ],
    ids=str,
)
def test_far(kind, padding):
    """Paddings as wide as torch takes them agree, too."""
    parity.check(
        getattr(layers, f"{kind}Pad1d")(padding),
        getattr(torch.nn, f"{kind}Pad1d")(padding),
        [Input(name="x", shape=SIZES[1], axes=AXES[1])],
        ["forward", "gradients"],
    ).raise_if_failed()


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: layers.ZeroPad2d((1, 2)), r"padding \(1, 2\) has 2 entries; use 1 or 4"),
        (lambda: layers.ReflectionPad1d(6), "padding 6 is not below the 6 pixels to be mirrored"),
        (lambda: layers.CircularPad1d(7), "padding 7 is above the 6 pixels to be repeated"),
        (lambda: layers.CircularPad1d((-2, 5)), "padding 5 is above the 4 pixels"),
        (lambda: layers.ConstantPad1d((-7, 3), 1), r"padding \(-7, 3\) leaves nothing of an axis"),
        (lambda: layers.ZeroPad3d(1), r"input \(2, 6, 3\) has fewer than 4 axes"),
    ],
)
def test_wrong_options(create, message):
    """Each wrong option is named with its value."""
    with pytest.raises(ValueError, match=message):
        create()(jnp.ones(SIZES[1]))
