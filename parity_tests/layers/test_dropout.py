"""Dropout layers against torch.nn's, which replay the same random numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flaxnets import layers, parity
from flaxnets.specs import Input
from torch_ref.random import replay

MAPS = {1: ("blc", (5, 7, 3)), 2: ("bhwc", (5, 6, 4, 3)), 3: ("bdhwc", (5, 2, 6, 4, 3))}
ANY = [("bf", (6, 5)), ("btf", (4, 6, 5)), *MAPS.values()]
CASES = (
    [("Dropout", *case) for case in ANY]
    + [("AlphaDropout", *case) for case in ANY]
    + [("FeatureAlphaDropout", *case) for case in [ANY[0], *MAPS.values()]]
    + [(f"Dropout{dims}d", *case) for dims, case in MAPS.items()]
)
CASES = [(*case, 0.3) for case in CASES] + [
    (kind, *MAPS[2], p)
    for kind in ("Dropout", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout")
    for p in (0.0, 0.8, 1.0)
]


@pytest.mark.parametrize(("kind", "axes", "shape", "p"), CASES)
def test_dropout(kind, axes, shape, p):
    """Outputs agree in training and in evaluation, in every layout."""
    parity.check(
        getattr(layers, kind)(p),
        getattr(torch.nn, kind)(p),
        [Input(name="x", shape=shape, axes=axes)],
        ["forward", "forward_train"],
    ).raise_if_failed()


class Net(nnx.Module):
    """Two dense layers, dropout behind each and noise between: three draws in a pass."""

    def __init__(self, rngs):
        self.conv = layers.Conv2d(3, 4, 3, rngs=rngs)
        self.drop1 = layers.Dropout2d(0.4)
        self.drop2 = layers.Dropout(0.3)
        self.flatten = layers.Flatten()
        self.fc = layers.Linear(32, 5, rngs=rngs)
        self.drop3 = layers.AlphaDropout(0.2)

    def __call__(self, x, rngs=None):
        x = self.drop2(self.drop1(self.conv(x), rngs=rngs), rngs=rngs)
        if not self.drop1.deterministic:
            x = x + jax.random.normal(rngs.noise(), x.shape, x.dtype)
        return self.drop3(self.fc(self.flatten(x)), rngs=rngs)


class TorchNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.drop1 = torch.nn.Dropout2d(0.4)
        self.drop2 = torch.nn.Dropout(0.3, inplace=True)
        self.flatten = torch.nn.Flatten()
        self.fc = torch.nn.Linear(32, 5)
        self.drop3 = torch.nn.AlphaDropout(0.2)

    def forward(self, x):
        x = self.drop2(self.drop1(self.conv(x)))
        if self.training:
            x = x + torch.randn_like(x)
        return self.drop3(self.fc(self.flatten(x)))


def create(seed):
    """A torch network from a seed."""
    torch.manual_seed(seed)
    return TorchNet()


def test_network():
    """A network that draws four times a pass is torch's network in every check."""
    parity.check(
        lambda seed: Net(nnx.Rngs(seed)),
        create,
        [Input(name="x", shape=(5, 6, 4, 3), axes="bhwc")],
    ).raise_if_failed()


def test_order_is_watched():
    """A twin that draws in another order, or not as often, fails."""

    class Swapped(TorchNet):
        def forward(self, x):
            return super().forward(self.drop2(x) if self.training else x)

    class Other(TorchNet):
        def __init__(self):
            super().__init__()
            self.drop1, self.drop2 = torch.nn.Dropout(0.4), torch.nn.Dropout2d(0.3)

    for twin in (Swapped(), Other()):
        report = parity.check(
            Net(nnx.Rngs(0)),
            twin,
            [Input(name="x", shape=(5, 6, 4, 3), axes="bhwc")],
            ["forward", "forward_train"],
        )
        assert [row.passed for row in report.rows] == [True, False]


@pytest.mark.parametrize(
    ("kind", "shape"), [("Dropout1d", (9, 7)), ("Dropout3d", (2, 3, 4, 7)), ("Dropout", (7,))]
)
def test_without_batch(kind, shape):
    """One example without a batch axis loses the channels that torch's loses."""
    ours = getattr(layers, kind)(0.5)(jnp.ones(shape), rngs=nnx.Rngs(1))
    with replay(1):
        theirs = getattr(torch.nn, kind)(0.5)(torch.ones(shape[-1:] + shape[:-1]))
    assert set(np.unique(ours)) == {0.0, 2.0}
    np.testing.assert_array_equal(np.moveaxis(np.asarray(ours), -1, 0), theirs)


def test_mask_is_one_for_all_dtypes():
    """float64, float32 and bfloat16 runs drop the same entries."""
    with jax.enable_x64(True):
        masks = [
            np.asarray(layers.Dropout(0.3)(jnp.ones(1000, dtype), rngs=nnx.Rngs(0)) == 0)
            for dtype in ("float64", "float32", "bfloat16")
        ]
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[2])
    assert 250 < masks[0].sum() < 350


def test_alpha_keeps_moments():
    """AlphaDropout of normal numbers has mean 0 and variance 1, as the paper says."""
    x = jax.random.normal(jax.random.key(0), (100_000,))
    y = layers.AlphaDropout(0.3)(x, rngs=nnx.Rngs(0))
    assert abs(float(y.mean())) < 0.02
    assert abs(float(y.var()) - 1) < 0.02


def test_streams():
    """A stream named dropout is taken where there is one; each call draws anew."""
    layer, x = layers.Dropout(0.5), jnp.ones(50)
    rngs = nnx.Rngs(0, dropout=1)
    first, second = layer(x, rngs=rngs), layer(x, rngs=rngs)
    np.testing.assert_array_equal(first, layer(x, rngs=nnx.Rngs(1)))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: layers.Dropout(1.5), "p 1.5 is out of range; use 0 to 1"),
        (lambda: layers.Dropout(0.5)(jnp.ones(3)), "Dropout in training draws numbers"),
        (lambda: layers.Dropout2d()(jnp.ones((2, 3, 4))), r"\(2, 3, 4\) has 3 axes; use 4"),
        (lambda: layers.Dropout1d()(jnp.ones(3)), "has 1 axes; use 2 or 3"),
        (lambda: layers.FeatureAlphaDropout()(jnp.ones(3)), "has 1 axes; use 2 or more"),
    ],
)
def test_wrong(act, message):
    """Each wrong option and input is named with its value, in one line."""
    with pytest.raises(ValueError, match=message) as error:
        act()
    assert "\n" not in str(error.value)
