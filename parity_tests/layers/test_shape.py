"""Layers that rearrange or crop against torch.nn's, and against torchvision's cropping."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from flaxnets import layers, parity
from flaxnets.specs import Input
from torch_ref import layers as torch_layers

SHAPES = {"bf": (2, 30), "blc": (2, 5, 3), "bhwc": (2, 4, 5, 3), "bdhwc": (2, 3, 4, 5, 6)}


def check(flax, torch_, axes, shape=None):
    """Outputs and gradients of the input have to agree."""
    inputs = [Input(name="x", shape=shape or SHAPES[axes], axes=axes)]
    parity.check(flax, torch_, inputs, ["forward", "gradients"]).raise_if_failed()


@pytest.mark.parametrize("axes", SHAPES)
def test_flatten(axes):
    """Flax and torch put features in the same order."""
    check(layers.Flatten(), torch.nn.Flatten(), axes)


@pytest.mark.parametrize("axes", ["bhwc", "bdhwc"])
@pytest.mark.parametrize("dims", [(2,), (-2,), (1, 2), (2, 3), (1, -2), (2, 2)], ids=str)
def test_flatten_some(dims, axes):
    """Axes are counted in torch's layout, and channels come last again."""
    check(layers.Flatten(*dims), torch.nn.Flatten(*dims), axes)
    # The harness takes outputs in either layout, so that channels last is asserted here.
    x = np.random.default_rng(0).normal(size=SHAPES[axes]).astype(np.float32)
    theirs = torch.nn.Flatten(*dims)(torch.tensor(np.moveaxis(x, -1, 1))).numpy()
    ours = np.asarray(layers.Flatten(*dims)(jnp.asarray(x)))
    np.testing.assert_array_equal(ours, np.moveaxis(theirs, 1, -1))


@pytest.mark.parametrize("size", [(30,), (5, 6), (2, 3, 5), (5, 1, 2, 3)], ids=str)
def test_unflatten(size):
    """Flax and torch put the same feature at the same pixel and channel."""
    check(layers.Unflatten(1, size), torch.nn.Unflatten(1, size), "bf")


@pytest.mark.parametrize("size", [(9, 7), (4, 4), (5, 3), (8, 2), (12, 10), (10, 4), (3, 9)])
def test_center_crop(size):
    """Even and odd margins agree, and so do zeros around a small image."""
    check(layers.CenterCrop(*size), torch_layers.CenterCrop(*size), "bhwc", (2, 9, 7, 3))


def test_center_crop_rounds_half_to_even():
    """Of 1, 3 and 5 spare pixels torchvision cuts 0, 2 and 2 at the start."""
    x = jnp.arange(7.0).reshape(1, 1, 7, 1)
    starts = [layers.CenterCrop(1, width)(x)[0, 0, 0, 0].item() for width in (6, 4, 2)]
    assert starts == [0, 2, 2]


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_shuffle(factor):
    """Flax and torch take the same channel to the same pixel, there and back."""
    few, many = (2, 3, 5, 2 * factor**2), (2, 3 * factor, 5 * factor, 2)
    check(layers.PixelShuffle(factor), torch.nn.PixelShuffle(factor), "bhwc", few)
    check(layers.PixelUnshuffle(factor), torch.nn.PixelUnshuffle(factor), "bhwc", many)


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: layers.Flatten(0), "start_dim 0 is the batch; use 1 or more"),
        (lambda: layers.Flatten(3, 2)(jnp.ones(SHAPES["bhwc"])), "start_dim 3 and end_dim 2 of an"),
        (lambda: layers.Unflatten(2, (1,)), "dim 2 cannot be split; use 1"),
        (lambda: layers.Unflatten(1, (2, 3))(jnp.ones((2, 7))), "6 entries, the input 7 features"),
        (lambda: layers.CenterCrop(0, 3), r"size \(0, 3\) is too small; use 1 pixel"),
        (lambda: layers.PixelShuffle(0), "upscale_factor 0 is too small"),
        (lambda: layers.PixelShuffle(2)(jnp.ones((1, 2, 2, 6))), "6 channels are not a multiple"),
        (lambda: layers.PixelUnshuffle(0), "downscale_factor 0 is too small"),
        (
            lambda: layers.PixelUnshuffle(2)(jnp.ones((1, 2, 3, 6))),
            r"height and width \(2, 3\) are not multiples of downscale_factor 2",
        ),
    ],
)
def test_wrong_options(create, message):
    """Each wrong option is named with its value."""
    with pytest.raises(ValueError, match=message):
        create()
