"""`layers.Upsample` against torch.nn.Upsample: every mode, larger and smaller, whole and not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.test_util import check_grads

from flaxnets import layers, parity
from flaxnets.layers.resize import Resampling
from flaxnets.specs import Input

AXES = {1: "blc", 2: "bhwc", 3: "bdhwc"}
SIZES = {1: (2, 7, 3), 2: (2, 5, 7, 3), 3: (2, 4, 5, 3, 2)}
TARGETS = {
    1: [{"size": s} for s in (1, 3, 7, 14, 16)]
    + [
        {"scale_factor": s, "recompute_scale_factor": r}
        for s in (2, 2.3, 0.6)
        for r in (None, True)
    ],
    2: [{"size": (10, 4)}, {"size": 6}, {"scale_factor": 2}, {"scale_factor": (1.5, 0.7)}],
    3: [{"size": (8, 3, 1)}, {"scale_factor": 2}, {"scale_factor": (0.5, 1.7, 3)}],
}
MODES = {
    1: ["nearest", "linear"],
    2: ["nearest", "bilinear", "bicubic"],
    3: ["nearest", "trilinear"],
}
CASES = [
    (dims, {"mode": mode, "align_corners": align, **target})
    for dims, targets in TARGETS.items()
    for mode in MODES[dims]
    for align in ((None,) if mode == "nearest" else (None, True))
    for target in targets
]
# The factor is lost in the rounding of the size. torch's 1d nearest and bicubic are left out:
# there it moves pixels on the way forward and copies them on the way back.
CASES += [(1, {"mode": "linear", "scale_factor": 1.1})]
CASES += [(2, {"mode": mode, "scale_factor": (1.1, 2.1)}) for mode in ("nearest", "bilinear")]


@pytest.mark.parametrize(("dims", "options"), CASES, ids=str)
def test_upsample(dims, options):
    """Flax and torch agree in outputs and gradients."""
    parity.check(
        layers.Upsample(**options),
        torch.nn.Upsample(**options),
        [Input(name="x", shape=SIZES[dims], axes=AXES[dims])],
        ["forward", "gradients"],
    ).raise_if_failed()


def test_nearest_pixels():
    """Every pixel that torch picks is picked, over many lengths, sizes and scale factors."""
    for length in range(1, 40, 3):
        x = torch.arange(float(length))[None, None]
        for scale in (0.3, 0.7, 1 / 3, 1.0, 1.3, 1.9, 2.0, 2.7, 3.0, 10 / 3):
            if int(length * scale):
                theirs = torch.nn.Upsample(scale_factor=scale)(x)[0, 0]
                ours = Resampling("nearest", length, int(length * scale), scale, False)
                assert theirs.int().tolist() == ours.matrix().argmax(1).tolist(), (length, scale)
        for size in range(1, 90, 7):
            theirs = torch.nn.Upsample(size=size)(x)[0, 0]
            ours = Resampling("nearest", length, size, None, False)
            assert theirs.int().tolist() == ours.matrix().argmax(1).tolist(), (length, size)


def test_bfloat16():
    """Two-byte pixels are weighed in four bytes, as in torch, and rounded once."""
    x = jax.random.normal(jax.random.key(0), (2, 5, 7, 3), jnp.bfloat16)
    layer = layers.Upsample(scale_factor=2.3, mode="bicubic")
    ours = layer(x)
    assert ours.dtype == jnp.bfloat16
    assert bool((ours == layer(x.astype(jnp.float32)).astype(jnp.bfloat16)).all())
    first = torch.tensor(np.moveaxis(np.asarray(x, np.float32), -1, 1)).bfloat16()
    theirs = torch.nn.Upsample(scale_factor=2.3, mode="bicubic")(first).float().numpy()
    gap = np.abs(np.moveaxis(np.asarray(ours, np.float32), -1, 1) - theirs)
    assert gap.max() <= 2**-7 * np.abs(theirs).max()


@pytest.mark.parametrize(("place", "reached"), [(3, [5, 6, 7, 8]), (0, [0, 1, 2])])
def test_not_finite(place, reached):
    """A NaN reaches the pixels that it has a weight in, and no others."""
    x = jnp.ones((1, 6, 1)).at[0, place].set(jnp.nan)
    y = layers.Upsample(scale_factor=2, mode="linear")(x)[0, :, 0]
    assert jnp.nonzero(jnp.isnan(y))[0].tolist() == reached


def test_second_derivative():
    """The gradient of a gradient is what differences say."""
    x = jax.random.normal(jax.random.key(0), (1, 4, 1))

    def energy(x):
        return (layers.Upsample(scale_factor=2, mode="linear")(x) ** 3).sum()

    def slope(x):
        return (jax.grad(energy)(x) ** 2).sum()

    check_grads(slope, (x,), 1, modes=["rev"], atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "size None and scale_factor None: give exactly one"),
        ({"size": 3, "scale_factor": 2}, "size 3 and scale_factor 2: give exactly one"),
        ({"size": 3, "mode": "cubic"}, "mode 'cubic' is unknown; use nearest, linear"),
        ({"size": 3, "align_corners": True}, "align_corners True means nothing to 'nearest'"),
        ({"size": 3, "recompute_scale_factor": True}, "needs a scale_factor, not a size"),
        ({"size": (3, 4, 5)}, r"size \(3, 4, 5\) has 3 entries; use 1 or 2"),
        ({"scale_factor": (2.0,)}, r"scale_factor \(2.0,\) has 1 entries; use 1 or 2"),
        ({"scale_factor": 0.1}, r"an input of \(4, 5\) pixels cannot become one of \(0, 0\)"),
        ({"size": 3, "mode": "linear"}, "has 4 axes; mode 'linear' wants 3"),
    ],
)
def test_wrong_options(options, message):
    """Each wrong option is named with its value."""
    with pytest.raises(ValueError, match=message):
        layers.Upsample(**options)(jnp.ones((1, 4, 5, 2)))
