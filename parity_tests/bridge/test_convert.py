"""Weights by torch's names: strict, complete, every dtype, and nothing changed on error."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import flaxnets
from flaxnets import bridge, layers
from torch_ref.arrays import tensors


class Nested(nnx.Module):
    """Every container there is, and a bare parameter."""

    def __init__(self, rngs):
        self.blocks = nnx.List([layers.Linear(2, 3, rngs=rngs), layers.Linear(3, 2, rngs=rngs)])
        self.heads = nnx.Dict(left=layers.Linear(2, 2, bias=False, rngs=rngs))
        self.encoder = nnx.Sequential(
            layers.Linear(2, 4, rngs=rngs), layers.ReLU(), layers.Linear(4, 1, rngs=rngs)
        )
        self.scale = nnx.Param(jnp.ones(3))
        self.dropout = nnx.Dropout(0.5, rngs=rngs)


class TorchNested(torch.nn.Module):
    """The same in torch."""

    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(2, 3), torch.nn.Linear(3, 2)])
        self.heads = torch.nn.ModuleDict({"left": torch.nn.Linear(2, 2, bias=False)})
        self.encoder = torch.nn.Sequential(
            torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)
        )
        self.scale = torch.nn.Parameter(torch.ones(3))


def test_containers():
    """NNX's containers count and name as torch's do; random number state has no counterpart."""
    ours, theirs = bridge.state_dict(Nested(nnx.Rngs(0))), TorchNested().state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: tuple(v.shape) for k, v in theirs.items()}
    assert [k for k in ours if k != "scale"] == [k for k in theirs if k != "scale"]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_dtypes_survive(dtype):
    """Torch to Flax to torch gives the same bits in every dtype."""
    twin = flaxnets.create("lenet", "torch", "tiny", seed=1).to(getattr(torch, dtype))
    with jax.enable_x64(True):
        flax = flaxnets.create("lenet", variant="tiny")
        graph, state = nnx.split(flax)
        flax = nnx.merge(graph, jax.tree.map(lambda x: x.astype(dtype), state))
    bridge.load_state_dict(flax, twin.state_dict())
    back = tensors(bridge.state_dict(flax))
    for name, value in twin.state_dict().items():
        assert back[name].dtype == value.dtype
        assert torch.equal(back[name], value)


class Shared(nnx.Module):
    """One table under two names."""

    tied_weights: ClassVar = {"out.weight": "table.weight"}

    def __init__(self, rngs):
        self.table = layers.Embedding(4, 3, rngs=rngs)


def test_shared_weights():
    """A copy leaves with its weight, wherever the module is, and gradients have one name."""
    model = nnx.Dict(inner=Shared(nnx.Rngs(0)))
    state = bridge.state_dict(model)
    assert list(state) == ["inner.table.weight", "inner.out.weight"]
    np.testing.assert_array_equal(*state.values())
    assert list(bridge.state_dict(model, nnx.state(model))) == ["inner.table.weight"]


def test_shared_weights_come_back():
    """A copy is equal or absent; one that differs in a bit or in dtype, or is alone, is refused."""
    model = Shared(nnx.Rngs(0))
    table = np.full((4, 3), np.float32(2))
    bridge.load_state_dict(model, {"table.weight": table})
    bridge.load_state_dict(model, {"table.weight": -table, "out.weight": -table})
    np.testing.assert_array_equal(model.table.weight[...], -table)
    zeros = np.zeros_like(table)
    for copy in (table, -zeros, zeros.astype(np.float64), zeros[:2]):
        with pytest.raises(bridge.BridgeError, match=r"out\.weight differs from table\.weight, to"):
            bridge.load_state_dict(model, {"table.weight": zeros, "out.weight": copy})
    with pytest.raises(bridge.BridgeError, match=r"missing table\.weight; unexpected out\.weight"):
        bridge.load_state_dict(model, {"out.weight": table})
    np.testing.assert_array_equal(model.table.weight[...], -table)


def test_all_findings_in_one_error():
    """Missing, unexpected, wrong shape, wrong dtype: all named at once, the model untouched."""
    model = flaxnets.create("mlp", variant="tiny")
    before = bridge.state_dict(model)
    state = {name: np.zeros_like(value) for name, value in before.items()}
    state["fc1.weights"] = state.pop("fc1.weight")
    state["fc2.weight"] = state["fc2.weight"].T
    state["out.bias"] = state["out.bias"].astype(np.float64)
    with pytest.raises(bridge.BridgeError) as caught:
        bridge.load_state_dict(model, state)
    message = str(caught.value)
    assert "missing fc1.weight" in message
    assert "unexpected fc1.weights (near fc1.weight)" in message
    assert "fc2.weight has shape (7, 6), not (6, 7)" in message
    assert "out.bias has dtype float64, not float32" in message
    assert "\n" not in message
    for name, value in bridge.state_dict(model).items():
        np.testing.assert_array_equal(value, before[name])


def test_same_count_of_elements_is_not_enough():
    """A kernel is never reshaped to fit."""
    model = layers.Conv2d(2, 3, (4, 1), rngs=nnx.Rngs(0))
    state = bridge.state_dict(model)
    state["weight"] = state["weight"].reshape(3, 2, 1, 4)
    with pytest.raises(bridge.BridgeError, match=r"shape \(3, 2, 1, 4\), not \(3, 2, 4, 1\)"):
        bridge.load_state_dict(model, state)


def test_rule_must_name_every_weight():
    """A layer that adds a weight to one with a rule needs a rule of its own."""

    class Gained(layers.Linear):
        def __init__(self, rngs):
            super().__init__(2, 2, rngs=rngs)
            self.gain = nnx.Param(jnp.ones(()))

    with pytest.raises(bridge.BridgeError, match="Gained does not name its weight 'gain'"):
        bridge.state_dict(Gained(nnx.Rngs(0)))


def test_gradients_cross_the_same_bridge():
    """An `nnx.State` of gradients gets torch's names and layouts."""
    model = flaxnets.create("lenet", variant="tiny")
    grads = nnx.state(model, nnx.Param)
    ours, weights = bridge.state_dict(model, grads), bridge.state_dict(model)
    for name in weights:
        np.testing.assert_array_equal(ours[name], weights[name])


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 3), st.integers(1, 2), st.integers(1, 3), st.data())
def test_any_convolution_round_trips(channels, groups, dims, data):
    """Any bits, NaN among them, come back from a round trip as they were."""
    kernel = [data.draw(st.integers(1, 3)) for _ in range(dims)]
    create = getattr(layers, f"Conv{dims}d")
    model = create(channels * groups, 2 * groups, kernel, groups=groups, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    state = {
        name: rng.integers(0, 2**32, value.shape, np.uint32).view(np.float32)
        for name, value in bridge.state_dict(model).items()
    }
    bridge.load_state_dict(model, state)
    for name, value in bridge.state_dict(model).items():
        np.testing.assert_array_equal(value.view(np.uint32), state[name].view(np.uint32))
