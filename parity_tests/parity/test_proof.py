"""`parity.check` on pairs that a user brings."""

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from flaxnets import bridge, parity
from flaxnets.specs import Input


class FlaxNet(nnx.Module):
    """A user's network of Flax's own layers."""

    def __init__(self, rngs, features=5):
        self.conv = nnx.Conv(3, features, (3, 3), padding="VALID", rngs=rngs)
        self.heads = nnx.List([nnx.Linear(features, n, rngs=rngs) for n in (2, 4)])

    def __call__(self, image, scale):
        x = jax.nn.relu(self.conv(image)).mean((1, 2)) * scale
        return {"map": self.conv(image), "heads": [head(x) for head in self.heads]}


class TorchNet(torch.nn.Module):
    """The same in torch."""

    def __init__(self, features=5):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, features, 3)
        self.heads = torch.nn.ModuleList([torch.nn.Linear(features, n) for n in (2, 4)])

    def forward(self, image, scale):
        x = self.conv(image).relu().mean((2, 3)) * scale
        return {"map": self.conv(image), "heads": [head(x) for head in self.heads]}


IMAGE = Input(name="image", shape=(2, 7, 6, 3), axes="bhwc")
SCALE = Input(name="scale", shape=(2, 1), axes="bf")
FUNCTIONAL = [name for name in parity.CHECKS if name != "initialisation"]


def test_users_pair():
    """Two inputs, nested outputs, a layer called twice: all checks but one pass."""
    report = parity.check(FlaxNet(nnx.Rngs(0)), TorchNet(), [IMAGE, SCALE], FUNCTIONAL)
    report.raise_if_failed()


class Normalised(nnx.Module):
    """A bias in front of BatchNorm has a gradient of zero."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)

    def __call__(self, image):
        return jax.nn.relu(self.norm(self.conv(image)))


class TorchNormalised(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding="same")
        self.norm = torch.nn.BatchNorm2d(4)

    def forward(self, image):
        return self.norm(self.conv(image)).relu()


ROWS = Input(name="x", shape=(4, 5), axes="bf")
TOKENS = Input(name="x", shape=(4, 6), axes="bt", high=7)
WORDS = Input(name="x", shape=(4, 6, 8), axes="btf")
MAP = Input(name="x", shape=(4, 6, 7, 3), axes="bhwc")
# Layers of Flax as its documentation sets them up, with torch's epsilon and momentum.
FLAX_LAYERS = {
    "Linear": (lambda rngs: nnx.Linear(5, 3, rngs=rngs), lambda: torch.nn.Linear(5, 3), ROWS),
    "Embed": (lambda rngs: nnx.Embed(7, 5, rngs=rngs), lambda: torch.nn.Embedding(7, 5), TOKENS),
    "Conv": (
        lambda rngs: nnx.Conv(3, 4, (3, 2), padding="VALID", rngs=rngs),
        lambda: torch.nn.Conv2d(3, 4, (3, 2)),
        MAP,
    ),
    "LayerNorm": (
        lambda rngs: nnx.LayerNorm(8, epsilon=1e-5, rngs=rngs),
        lambda: torch.nn.LayerNorm(8),
        WORDS,
    ),
    "RMSNorm": (
        lambda rngs: nnx.RMSNorm(8, epsilon=1e-5, rngs=rngs),
        lambda: torch.nn.RMSNorm(8, eps=1e-5),
        WORDS,
    ),
    "GroupNorm": (
        lambda rngs: nnx.GroupNorm(3, num_groups=3, epsilon=1e-5, rngs=rngs),
        lambda: torch.nn.GroupNorm(3, 3),
        MAP,
    ),
    "BatchNorm": (
        lambda rngs: nnx.BatchNorm(3, momentum=0.9, rngs=rngs),
        lambda: torch.nn.BatchNorm2d(3),
        MAP,
    ),
    "Conv and BatchNorm": (Normalised, TorchNormalised, MAP),
}


@pytest.mark.parametrize("name", FLAX_LAYERS)
def test_flax_layers(name):
    """Flax's own layers pass beside torch's, or fail for the reason that is true of them."""
    make, twin, eaten = FLAX_LAYERS[name]
    report = parity.check(make(nnx.Rngs(0)), twin(), [eaten], FUNCTIONAL)
    failed = {row.check: row.cause for row in report.rows if not row.passed}
    biased = "the biased variance, (n-1)/n, is stored"  # by Flax, the unbiased one by torch
    assert failed == ({"buffers": biased, "trajectory": biased} if "BatchNorm" in name else {})
    assert all("running_var" in row.worst for row in report.rows if not row.passed)


def test_flax_starts_otherwise():
    """Flax's own initialisation is not torch's, and the check says so."""

    def create(seed):
        torch.manual_seed(seed)
        return TorchNet()

    report = parity.check(
        lambda seed: FlaxNet(nnx.Rngs(seed)), create, [IMAGE, SCALE], ["initialisation"]
    )
    assert not report.passed


def test_arrays_as_inputs():
    """Plain arrays in Flax's layout will do; integers are left as they are."""
    image = np.random.default_rng(0).random((2, 7, 6, 3))
    report = parity.check(
        FlaxNet(nnx.Rngs(0)), TorchNet(), [image, np.array([[2], [3]])], ["forward", "gradients"]
    )
    assert report.passed, report.to_json()


def test_square_maps_are_told_apart():
    """Where height, width and channels are equal, values decide which axis is which."""
    report = parity.check(
        nnx.Conv(4, 4, (1, 1), rngs=nnx.Rngs(0)),
        torch.nn.Conv2d(4, 4, 1),
        [Input(name="x", shape=(4, 4, 4, 4), axes="bhwc")],
        ["forward", "gradients", "float32"],
    )
    assert report.passed, report.to_json()


def test_missing_submodule():
    """A weight without a counterpart is an error before any check."""
    with pytest.raises(bridge.BridgeError, match=r"missing heads\.0\.bias"):
        parity.check(torch_model=torch.nn.Linear(2, 2), flax_model=FlaxNet(nnx.Rngs(0)), inputs=[])


def test_raising_model_has_failed():
    """A model that raises has failed the check, and the row says how."""

    class Broken(nnx.Linear):
        def __call__(self, x):
            raise RuntimeError("no such thing\nsecond line")

    pair = Broken(2, 2, rngs=nnx.Rngs(0)), torch.nn.Linear(2, 2)
    report = parity.check(*pair, [np.ones((1, 2))], ["forward"])
    assert not report.passed
    assert report.rows[0].worst == "RuntimeError: no such thing"
    with pytest.raises(
        parity.ParityError, match="inf above 0 at Linear; Flax raises RuntimeError: no such"
    ):
        report.raise_if_failed()


def test_unequal_pair_fails():
    """An epsilon of difference in float64 is found: 1e-6 in the output."""

    class Shifted(nnx.Linear):
        def __call__(self, x):
            return super().__call__(x) + 1e-6

    pair = Shifted(3, 2, rngs=nnx.Rngs(0)), torch.nn.Linear(3, 2)
    report = parity.check(*pair, [np.ones((4, 3))], ["forward", "gradients"])
    passed = {row.check: row.passed for row in report.rows}
    assert passed == {"forward": False, "gradients": True}


def test_output_with_other_shape_fails():
    """An output that would broadcast is not equal."""

    class Squeezed(nnx.Linear):
        def __call__(self, x):
            return super().__call__(x)[0]

    pair = Squeezed(3, 2, rngs=nnx.Rngs(0)), torch.nn.Linear(3, 2)
    report = parity.check(*pair, [np.ones((1, 3))], ["forward", "gradients"])
    assert [row.passed for row in report.rows] == [False, False]
    assert "shape (2,) is not (1, 2)" in report.rows[0].worst


def test_unknown_check():
    """A check that does not exist is named."""
    with pytest.raises(KeyError, match="check 'speed' is unknown"):
        parity.check(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), torch.nn.Linear(2, 2), [], ["speed"])


def test_models_are_left_alone():
    """A check changes neither model."""
    flax, twin = FlaxNet(nnx.Rngs(0)), TorchNet()
    before = bridge.state_dict(flax), {k: v.clone() for k, v in twin.state_dict().items()}
    parity.check(flax, twin, [IMAGE, SCALE], ["forward", "compiled"])
    for name, value in bridge.state_dict(flax).items():
        np.testing.assert_array_equal(value, before[0][name])
        assert torch.equal(twin.state_dict()[name], before[1][name])
    assert jnp.asarray(flax.conv.kernel[...]).dtype == jnp.float32
