"""Activations against torch.nn's, at random points and at the points where pieces meet."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import torch
from einops import rearrange
from flax import nnx

from flaxnets import layers, parity
from flaxnets.parity.tolerances import KOLMOGOROV_SMIRNOV
from flaxnets.specs import Input

# Every piece of every activation below and the points where its pieces meet (0, 6, the ends of
# ranges, the thresholds of the options). Far points apart, since errors are judged against the
# largest magnitude; exp overflows there in float64.
NEAR = np.concatenate([np.linspace(-6, 6, 49), [-0.0, 20.0, 20.25, -1e-30, 1e-30]])
FAR = np.array([-1e5, -1e3, -80.0, 80.0, 1e3, 1e5])

# torch's gradient of Hardsigmoid holds 1/6 as a float32 number in float64, too.
TORCH_SIXTH = 2.0**-24

OPTIONS = {
    "ReLU": [()],
    "ReLU6": [()],
    "LeakyReLU": [(), (0.25,), (0.0,)],
    "PReLU": [(), (1, 0.5)],
    "RReLU": [(), (0.25, 0.75), (0.5, 0.5)],
    "ELU": [(), (2.0,), (0.5,)],
    "SELU": [()],
    "CELU": [(), (2.0,), (0.5,)],
    "GELU": [(), ("tanh",)],
    "SiLU": [()],
    "Mish": [()],
    "Softplus": [(), (2.0, 4.0), (0.5, 1.0)],
    "Tanh": [()],
    "Sigmoid": [()],
    "LogSigmoid": [()],
    "Softsign": [()],
    "Tanhshrink": [()],
    "Hardtanh": [(), (-2.0, 0.5), (0.0, 3.0)],
    "Hardsigmoid": [()],
    "Hardswish": [()],
    "Hardshrink": [(), (1.25,), (0.0,)],
    "Softshrink": [(), (1.25,), (0.0,)],
    "Threshold": [(0.5, 20.0), (-1.0, -1.0), (0.0, -3.0)],
    "GLU": [(), (0,), (1,)],
    "Softmax": [(-1,), (0,)],
    "Softmin": [(-1,), (0,)],
    "Softmax2d": [()],
    "LogSoftmax": [(-1,), (0,)],
}
ELSEWHERE = {"MultiheadAttention": "an attention layer that torch files under activations"}

# torch's options that have no meaning here: arrays of JAX never change in place, dtype and
# device are its users' own settings, and min_value and max_value are deprecated.
ABSENT = {"self", "args", "kwargs", "inplace", "device", "dtype", "min_value", "max_value"}


def test_all_are_here():
    """Every activation of torch.nn is a layer here, and is tested, or has a reason not to be."""
    theirs = set(torch.nn.modules.activation.__all__)
    assert theirs == OPTIONS.keys() | ELSEWHERE.keys()
    assert OPTIONS.keys() <= set(layers.__all__)


@pytest.mark.parametrize("name", OPTIONS)
def test_arguments(name):
    """Arguments have torch's names, order and defaults."""

    def arguments(create):
        found = inspect.signature(create.__init__).parameters
        return {key: value.default for key, value in found.items() if key not in ABSENT}

    theirs = arguments(getattr(torch.nn, name))
    if theirs.get("dim", 0) is None:  # with which torch guesses the axis, and warns that it does
        theirs["dim"] = -1
    assert list(arguments(getattr(layers, name)).items()) == list(theirs.items())


@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name, grid in OPTIONS.items() for options in grid]
)
@pytest.mark.parametrize("points", [NEAR, FAR], ids=["near", "far"])
def test_activation(name, options, points):
    """Values and gradients agree, also at zero, at every kink and far out."""
    points = np.stack([points, points[::-1]])  # pairs for those that work along an axis
    if name == "Softmax2d":
        points = rearrange(points, "b (h c) -> b h 1 c", c=2)
    report = parity.check(
        getattr(layers, name)(*options),
        getattr(torch.nn, name)(*options),
        [points],
        ["forward", "gradients"],
    )
    if name == "Hardsigmoid":
        assert all(row.error <= TORCH_SIXTH for row in report.rows)
    else:
        report.raise_if_failed()


@pytest.mark.parametrize(
    ("name", "options", "shape", "axes"),
    [
        ("PReLU", (3,), (4, 3), "bf"),
        ("PReLU", (3,), (2, 5, 3), "blc"),
        ("PReLU", (3,), (2, 4, 5, 3), "bhwc"),
        ("PReLU", (), (2, 4, 5, 3), "bhwc"),
        ("Softmax2d", (), (2, 4, 5, 3), "bhwc"),
    ],
)
def test_channels(name, options, shape, axes):
    """Channels are torch's, though they are the last axis."""
    parity.check(
        lambda seed: getattr(layers, name)(*options),
        lambda seed: getattr(torch.nn, name)(*options),
        [Input(name="x", shape=shape, axes=axes)],
        ["forward", "gradients", "round_trip", "initialisation"],
    ).raise_if_failed()


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("name", ["GLU", "Softmax", "Softmin", "LogSoftmax"])
def test_dim(name, dim):
    """`dim` counts Flax's axes: 1 and 2 are pixels, 3 is torch's 1."""
    parity.check(
        getattr(layers, name)(dim),
        getattr(torch.nn, name)({1: 2, 2: 3, 3: 1}[dim]),
        [Input(name="x", shape=(2, 4, 6, 8), axes="bhwc")],
        ["forward", "gradients"],
    ).raise_if_failed()


def test_rrelu_in_training():
    """With the same slopes, outputs and gradients are torch's; so is the slopes' distribution."""
    layer, lower, upper = layers.RReLU(0.2, 0.7), 0.2, 0.7
    with jax.enable_x64(True):
        x = jnp.concatenate([jnp.zeros(2), jnp.linspace(-4, 4, 4000)])
        y, pull = jax.vjp(lambda x: layer(x, rngs=nnx.Rngs(0)), x)
        (slopes,) = pull(jnp.ones_like(x))
        again = layer(x, rngs=nnx.Rngs(0))
        other = layer(x, rngs=nnx.Rngs(1))
    assert (y == again).all()
    assert (y != other).any()
    x, slopes = torch.tensor(np.asarray(x)), torch.tensor(np.asarray(slopes))
    np.testing.assert_array_equal(np.asarray(y), x * slopes)
    one = torch.ones_like(x)
    theirs = torch.ops.aten.rrelu_with_noise_backward(one, x, slopes, lower, upper, True, False)
    np.testing.assert_array_equal(slopes, theirs)
    drawn = torch.full((4000,), -1.0, dtype=torch.float64)
    drawn = -torch.nn.RReLU(lower, upper)(drawn)
    ours = slopes[x <= 0].numpy()
    distance = scipy.stats.ks_2samp(ours, drawn.numpy(), method="asymp").statistic
    assert distance < KOLMOGOROV_SMIRNOV * (1 / len(ours) + 1 / len(drawn)) ** 0.5


def test_rrelu_view():
    """`nnx.view` switches a whole model to evaluation, where no random numbers are needed."""
    model = nnx.Sequential(layers.RReLU(), layers.Tanh())
    x = jnp.linspace(-2, 2, 5)
    with pytest.raises(ValueError, match="RReLU draws slopes in training; call it with rngs"):
        model(x)
    model = nnx.view(model, deterministic=True)
    np.testing.assert_allclose(model(x), np.tanh(np.where(x > 0, x, x * (1 / 8 + 1 / 3) / 2)))


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: layers.PReLU(3)(jnp.ones((2, 4))), r"input \(2, 4\) .* num_parameters 3"),
        (lambda: layers.RReLU(0.5, 0.25), "lower 0.5 is above upper 0.25"),
        (lambda: layers.CELU(0.0), "alpha 0 would divide by zero"),
        (lambda: layers.Softplus(0.0), "beta 0 would divide by zero"),
        (lambda: layers.Hardtanh(1.0, 1.0), "min_val 1.0 is not below max_val 1.0"),
        (lambda: layers.Softshrink(-1.0), "lambd -1.0 is negative; use 0 or more"),
        (lambda: layers.GLU()(jnp.ones((2, 3))), r"input \(2, 3\) cannot be halved along dim -1"),
    ],
)
def test_wrong_options(create, message):
    """Each wrong option is named with its value."""
    with pytest.raises(ValueError, match=message):
        create()


def test_names():
    """The names that specs use mean the same activations on both sides."""
    from torch_ref.layers.activation import BY_NAME

    assert {k: v.__name__ for k, v in BY_NAME.items()} == {
        name: type(layers.activation(name)).__name__ for name in BY_NAME
    }
    x = jnp.linspace(-2, 2, 5)
    assert float(layers.activation("gelu")(x)[0]) == pytest.approx(-0.0455, abs=1e-4)
