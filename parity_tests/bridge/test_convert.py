"""Weights by torch's names: strict, complete, every dtype, and nothing changed on error."""

import time
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
from flaxnets.bridge.convert import as_numpy, entries
from parity_tests import fuzz
from parity_tests.tensors import CARRIED, LEFT, make, states
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


@pytest.mark.parametrize("kind", LEFT)
def test_kinds_of_tensors_that_numpy_lacks(kind):
    """A tensor that no array can hold is named with its key, and the model stays as it was."""
    model = layers.Linear(2, 3, rngs=nnx.Rngs(0))
    before = bridge.state_dict(model)
    with pytest.raises(bridge.BridgeError, match=rf"weight is a .*{kind.split()[0]}") as caught:
        bridge.load_state_dict(model, {"weight": make(kind), "bias": torch.ones(3)})
    fuzz.require_line(str(caught.value))
    with pytest.raises(bridge.BridgeError, match="no array of NumPy: a "):
        as_numpy(make(kind))
    for name, value in bridge.state_dict(model).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("kind", CARRIED)
def test_kinds_of_tensors_that_numpy_has(kind):
    """Any other tensor becomes the array of its values: conjugate, negative, strided."""
    tensor = make(kind)
    array = as_numpy(tensor)
    assert (str(tensor.dtype), tensor.shape) == (f"torch.{array.dtype}", array.shape)
    np.testing.assert_array_equal(array.astype(complex).tolist(), tensor.tolist())


def test_huge_views_take_no_memory():
    """A view of one number as 2^40 is refused by its shape, without being written out."""
    model, huge = layers.Linear(2, 3, rngs=nnx.Rngs(0)), torch.ones(1).bfloat16().expand(1 << 40)
    with fuzz.memory_below(32 << 20), pytest.raises(bridge.BridgeError, match="weight has shape"):
        bridge.load_state_dict(model, {"weight": huge, "bias": huge})
    shared = Shared(nnx.Rngs(0))
    with (
        fuzz.memory_below(32 << 20),
        pytest.raises(bridge.BridgeError, match=r"out\.weight differs"),
    ):
        bridge.load_state_dict(shared, {"table.weight": huge, "out.weight": torch.ones(1)})


@pytest.fixture(scope="module")
def bert():
    """BERT-base's shapes, and arrays of these shapes that take no memory."""
    model = nnx.eval_shape(lambda: flaxnets.create("bert"))
    return model, {
        entry.name: np.broadcast_to(np.float32(0), entry.torch_shape) for entry in entries(model)
    }


def _without_prefix(name):
    return name.removeprefix("bert.")


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        (_without_prefix, "197 of 202 names lack the prefix 'bert.' (all"),
        (lambda name: f"module.{name}", "all 202 names have the unexpected prefix 'module.' (all"),
        (lambda name: f"_orig_mod.{name}", "all 202 names have the unexpected prefix '_orig_mod.'"),
        (
            lambda name: f"a.model.{name}",
            "all 202 names have the unexpected prefix 'a.model.' (all",
        ),
        (
            lambda name: name.replace("layer", "layr"),
            "unexpected bert.encoder.layr.0.attention.output.LayerNorm.bias (near "
            "bert.encoder.layer.0.attention.output.LayerNorm.bias)",
        ),
        (lambda name: f"{name}\x1b[2J", "; missing bert.embeddings.LayerNorm.weight; unexpected"),
    ],
)
def test_many_findings_are_one_short_line(bert, rename, said):
    """What names have in common comes first, ten findings follow, and `findings` has them all."""
    model, arrays = bert
    state = {rename(name): value for name, value in arrays.items()}
    start = time.process_time()
    with pytest.raises(bridge.BridgeError) as caught:
        bridge.load_state_dict(model, state)
    assert time.process_time() - start < 2
    fuzz.require_line(str(caught.value))
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1500
    assert "(all in the error's `findings`, or by flaxnets convert --verbose)" in str(caught.value)
    findings = caught.value.findings
    assert len(findings) == len(arrays.keys() ^ state.keys())
    for finding in findings:
        fuzz.require_line(finding)
    missing = {finding.removeprefix("missing ") for finding in findings if finding[:1] == "m"}
    assert missing == arrays.keys() - state.keys()


def test_part_of_a_checkpoint_lacks_a_prefix(bert):
    """A checkpoint of the encoder alone lacks the prefix, and what the heads lack is said."""
    model, arrays = bert
    state = {_without_prefix(name): x for name, x in arrays.items() if name[:5] == "bert."}
    with pytest.raises(
        bridge.BridgeError, match=r"all 197 names lack the prefix 'bert\.'; missing cls"
    ):
        bridge.load_state_dict(model, state)


def test_no_mapping():
    """What is no mapping of names is one line."""
    model = layers.Linear(2, 3, rngs=nnx.Rngs(0))
    for state in (None, [torch.ones(3)], torch.ones(3), "weight"):
        with pytest.raises(
            bridge.BridgeError, match="a state_dict is a mapping of names to arrays"
        ):
            bridge.load_state_dict(model, state)


def test_any_state_dict(attack, capfd):
    """Any mapping of anything to anything loads to the bit, or is one line and changes nothing."""
    model = layers.Linear(2, 3, rngs=nnx.Rngs(0))

    def check(state):
        before = bridge.state_dict(model)
        with fuzz.one_line(bridge.BridgeError):
            try:
                bridge.load_state_dict(model, state)
            except bridge.BridgeError:
                state = before
                raise
            finally:
                for name, value in bridge.state_dict(model).items():
                    np.testing.assert_array_equal(value, as_numpy(state[name]))

    attack("state_dicts", states, check, 200)
    assert capfd.readouterr() == ("", "")
