"""The verdict on pairs that differ on purpose: what its first line says of them."""

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx

from flaxnets import layers, parity
from flaxnets.bridge import Leaf, rules
from flaxnets.specs import Input

RNGS = nnx.Rngs(0)
ROWS = Input(name="x", shape=(3, 5), axes="bf")
SEQUENCE = Input(name="x", shape=(2, 6, 3), axes="btf")
IMAGE = Input(name="x", shape=(2, 7, 6, 3), axes="bhwc")


class Twin(nnx.Module):
    """A Flax network of layers by name, called in order."""

    def __init__(self, **named):
        self.order = tuple(named)
        for name, layer in named.items():
            setattr(self, name, layer)

    def __call__(self, x):
        for name in self.order:
            x = getattr(self, name)(x)
        return x[0] if isinstance(x, tuple) else x


class Torch(torch.nn.Module):
    """The same in torch."""

    def __init__(self, **named):
        super().__init__()
        self.order = tuple(named)
        for name, layer in named.items():
            setattr(self, name, layer)

    def forward(self, x):
        for name in self.order:
            x = getattr(self, name)(x)
        return x[0] if isinstance(x, tuple) else x


class TanhGELU(nnx.Module):
    """Flax's default."""

    def __call__(self, x):
        return jax.nn.gelu(x)


class Turned(nnx.Module):
    """A dense layer with torch's name and Flax's layout."""

    def __init__(self, size):
        self.weight = nnx.Param(jnp.ones((size, size)))

    def __call__(self, x):
        return x @ self.weight[...]


class GatesSwapped(layers.LSTM):
    """An LSTM that takes the gates f and g for each other."""

    def _weights(self, layer, direction):
        return [
            jnp.concatenate([w[:4], w[8:12], w[4:8], w[12:]])
            for w in super()._weights(layer, direction)
        ]


class Biased(layers.BatchNorm1d):
    """BatchNorm that stores the biased variance, as Flax's does."""

    def _track(self, mean, var, factor):
        super()._track(mean, var * 2 / 3, factor)


def _linear(i, o):
    return layers.Linear(i, o, rngs=RNGS), torch.nn.Linear(i, o)


def _pair(*sides, first=None):
    """Two networks: a layer, or none, and the layer that differs."""
    named = [{}, {}]
    for place, side in enumerate(sides):
        if first:
            named[place]["first"] = first[place]
        if side is not None:
            named[place]["second"] = side
    return Twin(**named[0]), Torch(**named[1])


PAIRS = {
    "tanh GELU": (
        lambda: _pair(TanhGELU(), torch.nn.GELU(), first=_linear(5, 4)),
        ROWS,
        "second: GELU by tanh (forward)",
    ),
    "epsilon": (
        lambda: _pair(nnx.LayerNorm(4, rngs=RNGS), torch.nn.LayerNorm(4), first=_linear(5, 4)),
        ROWS,
        "second: eps 1e-06, not 1e-05 (forward)",
    ),
    "padding": (
        lambda: _pair(
            nnx.Conv(3, 4, (3, 3), strides=2, rngs=RNGS),
            torch.nn.Conv2d(3, 4, 3, stride=2, padding=1),
        ),
        IMAGE,
        "second: SAME padding, not (1, 1) (forward)",
    ),
    "padding of another size": (
        lambda: _pair(nnx.Conv(3, 4, (3, 3), rngs=RNGS), torch.nn.Conv2d(3, 4, 3)),
        IMAGE,
        "second: SAME padding, not (0, 0) (forward)",
    ),
    "LSTM gates swapped": (
        lambda: _pair(
            GatesSwapped(3, 4, batch_first=True, rngs=RNGS), torch.nn.LSTM(3, 4, batch_first=True)
        ),
        SEQUENCE,
        "second: gates in the order i, g, f, o, not i, f, g, o (forward)",
    ),
    "biased running variance": (
        lambda: _pair(Biased(4), torch.nn.BatchNorm1d(4), first=_linear(5, 4)),
        ROWS,
        "second.running_var: the biased variance, (n-1)/n, is stored (buffers)",
    ),
    "a dense layer missing": (
        lambda: (
            Twin(one=_linear(5, 4)[0], three=_linear(4, 2)[0]),
            Torch(one=_linear(5, 4)[1], two=_linear(4, 4)[1], three=_linear(4, 2)[1]),
        ),
        ROWS,
        "two: Linear is missing on the Flax side (weights)",
    ),
    "an activation missing": (
        lambda: _pair(None, torch.nn.Tanh(), first=_linear(5, 4)),
        ROWS,
        "second: missing on the Flax side: Tanh is left out (forward)",
    ),
    "other names": (
        lambda: (
            nnx.Sequential(_linear(5, 4)[0], _linear(4, 2)[0]),
            torch.nn.Sequential(_linear(5, 4)[1], torch.nn.ReLU(), _linear(4, 2)[1]),
        ),
        ROWS,
        "1: missing on the Flax side: ReLU is left out (forward)",
    ),
    "transposed weight": (
        lambda: _pair(Turned(4), torch.nn.Linear(4, 4, bias=False), first=_linear(5, 4)),
        ROWS,
        "second: weight transposed (forward)",
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_first_line(name):
    """The first line names the layer and the cause."""
    create, given, expected = PAIRS[name]
    found = parity.diagnose(*create(), [given])
    assert str(found).splitlines()[0] == expected
    assert not found.same


def test_transposed_by_shape():
    """A weight whose shape is the other way round is named too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(rules.RULES, nnx.Linear, (Leaf("kernel", "weight"), Leaf("bias", "bias")))
        found = parity.diagnose(*_pair(*_linear(5, 4)), [ROWS])
    assert str(found).splitlines()[0] == "second: weight transposed (weights)"


def test_same():
    """Of equal models it says so, with the errors that it saw."""
    found = parity.diagnose(*_pair(*_linear(5, 4)), [ROWS])
    assert found.same
    assert str(found).startswith("no difference found\nforward: error")
