"""Specs: what they refuse, and that JSON gives them back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flaxnets
from flaxnets import bridge, specs
from flaxnets.specs import Input, SpecError

ALL = [
    pytest.param(spec, id=f"{name}-{variant}")
    for name in flaxnets.names()
    for variant, spec in specs.variants(name).items()
]


@pytest.mark.parametrize("spec", ALL)
def test_json(spec):
    """A spec and its JSON say the same."""
    assert specs.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("spec", ALL)
def test_inputs(spec):
    """Inputs have as many axes as letters, and the batch that was asked for."""
    for given in spec.inputs(3):
        assert len(given.axes) == len(given.shape)
        assert given.shape[0] == 3
        assert given.axes[0] == "b"


def test_torch_axes():
    """Channels go behind the batch, features stay."""
    axes = {"bhwc": "bchw", "bdhwc": "bcdhw", "blc": "bcl", "btf": "btf", "bf": "bf"}
    for flax, torch_ in axes.items():
        assert Input(name="x", shape=(1,) * len(flax), axes=flax).torch_axes == torch_


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: flaxnets.spec("lennet"), "architecture 'lennet' is unknown; did you mean 'lenet'"),
        (lambda: flaxnets.spec("lenet", "huge"), "lenet: variant 'huge' is unknown; use one of"),
        (lambda: flaxnets.spec("lenet", num_class=3), "no field 'num_class'; did you mean"),
        (lambda: flaxnets.spec("mlp", num_classes="3"), "num_classes '3' is not of type int"),
        (lambda: flaxnets.spec("mlp", num_classes=True), "num_classes True is not of type int"),
        (lambda: flaxnets.spec("mlp", num_classes=0), "num_classes 0 is too small; use 1 or more"),
        (lambda: flaxnets.spec("mlp", hidden_sizes=(5, 0, 5)), r"hidden_sizes \(5, 0, 5\) is too"),
        (lambda: flaxnets.spec("mlp", hidden_sizes=(5, 5)), r"hidden_sizes \(5, 5\) is not of"),
        (
            lambda: flaxnets.spec("feedforward", activation="rely"),
            "activation 'rely' is not one of 'relu', 'tanh'",
        ),
        (lambda: flaxnets.spec("mlp", num_classes=2**31), "num_classes 2147483648 is out of range"),
        (lambda: flaxnets.spec("mlp", num_classes=10**400), "00000 is out of range; use finite"),
        (lambda: flaxnets.spec("mlp", hidden_sizes=(5, 2**31, 5)), r"2147483648, 5\) is out of r"),
        (lambda: flaxnets.spec("rnn", dropout=float("nan")), "dropout nan is out of range"),
        (lambda: flaxnets.spec("bert", layer_norm_eps=float("inf")), "layer_norm_eps inf is out"),
        (lambda: flaxnets.spec("transformer", layer_norm_eps=-1.0), "layer_norm_eps -1.0 is too"),
        (lambda: flaxnets.spec("rnn", num_layers=1001), "num_layers 1001 is too large; use 1000"),
        (lambda: flaxnets.spec("x" * 500), r"xxx\.\.\.xxx"),
        (lambda: flaxnets.spec("mlp", "\x1b[31m"), r"variant '\\x1b\[31m' is unknown"),
        (lambda: specs.from_json("{}"), "not a spec"),
        (lambda: specs.from_json("no"), "not a spec"),
        (lambda: specs.from_json('{"architecture": "mlp", "spec": 3}'), "not a spec"),
        (lambda: flaxnets.create("mlp", "tensorflow"), "backend 'tensorflow' is unknown"),
        (lambda: flaxnets.create("mlp", dtype="int8"), "dtype 'int8' is unknown; use float32, fl"),
    ],
)
def test_wrong_input(make, message):
    """Each mistake gets one line that names it."""
    with pytest.raises(SpecError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ALL)
def test_on_cpu(spec):
    """The variant that suits a CPU is one of the network's, and has something to learn."""
    if spec.on_cpu:
        assert specs.make(spec.name, spec.on_cpu).task


@pytest.mark.parametrize("name", flaxnets.names())
def test_dtype(name):
    """All real weights have the dtype that is asked for, whatever JAX's own is, in both twins."""
    for dtype, enabled in (("float32", True), ("float64", False)):
        with jax.enable_x64(enabled):
            model = flaxnets.create(name, variant="tiny", dtype=dtype)
        real = [
            x for x in jax.tree.leaves(nnx.state(model)) if jnp.issubdtype(x.dtype, jnp.inexact)
        ]
        assert {str(x.dtype) for x in real} == {dtype}
        state = flaxnets.create(name, "torch", "tiny", dtype=dtype).state_dict().values()
        assert {x.dtype for x in state if x.is_floating_point()} == {getattr(torch, dtype)}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_dtype(dtype):
    """The float32 numbers, rounded, in both twins."""
    ours, exact = (
        bridge.state_dict(flaxnets.create("lenet", variant="tiny", dtype=name))
        for name in (dtype, "float32")
    )
    for name, value in ours.items():
        np.testing.assert_array_equal(value, exact[name].astype(dtype))
    theirs, exact = (
        flaxnets.create("lenet", "torch", "tiny", dtype=name).state_dict()
        for name in (dtype, "float32")
    )
    for name, value in theirs.items():
        assert torch.equal(value, exact[name].to(getattr(torch, dtype)))


def test_frozen():
    """A spec cannot be changed behind its twins' backs."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        flaxnets.spec("mlp").num_classes = 3


def test_same_seed_same_model():
    """A seed decides the weights, and torch's global generator is left alone."""
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = (flaxnets.create("mlp", "torch", "tiny", seed=3) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(map(torch.equal, first.parameters(), second.parameters()))
