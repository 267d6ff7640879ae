"""The pair: both models get the same weights and inputs, and a redraw changes them."""

import jax
import numpy as np
import torch
from flax import nnx

from flaxnets import bridge, layers, parity
from flaxnets.specs import Input

TOKENS = Input(name="tokens", shape=(2, 6), axes="bt", high=4)


def _pair():
    return parity.Pair(
        layers.Conv2d(2, 3, 3, rngs=nnx.Rngs(0)),
        torch.nn.Conv2d(2, 3, 3),
        [Input(name="x", shape=(2, 5, 6, 2), axes="bhwc")],
    )


def test_same_weights_and_inputs():
    """What one side holds, the other holds in its own layout."""
    with jax.enable_x64(True):
        pair = _pair()
        flax, twin = bridge.state_dict(pair.flax_model()), pair.torch_model().state_dict()
        for name, value in twin.items():
            np.testing.assert_array_equal(flax[name], value.numpy())
            assert np.abs(flax[name]).min() > 0, "a weight of zero hides a fault"
        (x,), (y,) = pair.flax_inputs(), pair.torch_inputs()
        np.testing.assert_array_equal(np.moveaxis(np.asarray(x), -1, 1), y.numpy())
        assert x.dtype == np.float64


def test_shared_weights_stay_shared():
    """A tensor that torch's module holds under two names is drawn once."""
    twin = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    twin["b"].weight = twin["a"].weight
    flax = nnx.Dict(a=nnx.Linear(2, 2, rngs=nnx.Rngs(0)), b=nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    weights = parity.Pair(flax, twin, []).weights
    np.testing.assert_array_equal(weights["a.weight"], weights["b.weight"])
    assert not np.array_equal(weights["a.bias"], weights["b.bias"])


def test_float32_holds_the_float64_weights():
    """Both precisions start from the same numbers."""
    pair = _pair()
    for name, value in pair.state("float64").items():
        np.testing.assert_array_equal(value, pair.state("float32")[name])


def test_redrawn():
    """Another seed is another draw; the first stays as it was."""
    pair = _pair()
    before = pair.weights["weight"].copy()
    other = pair.redrawn(7)
    assert not np.array_equal(other.weights["weight"], before)
    assert not np.array_equal(other.values[0], pair.values[0])
    np.testing.assert_array_equal(pair.weights["weight"], before)


def test_integer_inputs_stay_in_range():
    """Tokens are drawn below `high`."""
    pair = parity.Pair(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), torch.nn.Linear(1, 1), [TOKENS])
    assert pair.values[0].dtype == np.int32
    assert set(np.unique(pair.values[0])) <= set(range(4))
