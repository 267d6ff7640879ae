"""Traces: both sides record the same calls, with what they were given and gave."""

import jax
import numpy as np
import torch
from flax import nnx

from flaxnets import parity
from flaxnets.parity.diagnosis.trace import flax_run, gap, inputs, torch_run
from flaxnets.parity.mutations.chain import CHAINS


def test_both_sides_alike():
    """Names, numbers, inputs and outputs agree; the model itself comes last."""
    with jax.enable_x64(True):
        pair = parity.Pair(*CHAINS["gelu"]())
        theirs, ours = torch_run(pair), flax_run(pair)
    assert list(theirs.calls) == list(ours.calls) == ["dense#1", "act#1", "#1"]
    for key, truth in theirs.calls.items():
        for given, taken in inputs(truth, ours.calls[key]):
            assert gap(pair, given, taken) < 1e-12
        for name, array in truth.outputs.items():
            assert gap(pair, array, ours.calls[key].outputs[name]) < 1e-12


def test_in_place_layers():
    """What a torch layer writes over is kept as it was."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.act = torch.nn.Linear(3, 4), torch.nn.ReLU(inplace=True)

        def forward(self, x):
            return self.act(self.fc(x))

    class Twin(nnx.Module):
        def __init__(self):
            self.fc = nnx.Linear(3, 4, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return jax.nn.relu(self.fc(x))

    with jax.enable_x64(True):
        run = torch_run(parity.Pair(Twin(), Net(), [np.random.default_rng(0).random((5, 3))]))
    (given,) = run.calls["act#1"].args
    np.testing.assert_array_equal(given.numpy(), run.calls["fc#1"].outputs["output"])
    assert (given.numpy() < 0).any()


def test_training_draws_the_same():
    """In training mode torch drops what Flax drops."""
    with jax.enable_x64(True):
        pair = parity.Pair(*CHAINS["dropout"]())
        theirs, ours = torch_run(pair, training=True), flax_run(pair, training=True)
        truth, other = (run.calls["drop#1"].outputs["output"] for run in (theirs, ours))
        assert (truth == 0).any()
        assert gap(pair, truth, other) < 1e-12
