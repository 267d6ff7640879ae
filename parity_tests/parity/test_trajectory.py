"""Training side by side: every optimizer, clipping and schedule, and a step that goes wrong."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from flaxnets import parity
from flaxnets.parity.trajectory import METHODS, STEPS, Step, compare_steps
from flaxnets.specs import Input
from flaxnets.training import optimizers, schedules
from torch_ref.training import optimizers as torch_optimizers
from torch_ref.training import schedules as torch_schedules


class Small(nnx.Module):
    """Two dense layers, a smooth activation, and nothing whose gradient is zero."""

    def __init__(self, seed):
        rngs = nnx.Rngs(seed)
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.second = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.second(nnx.tanh(self.first(x)))


class TorchSmall(torch.nn.Module):
    def __init__(self, seed):
        torch.manual_seed(seed)
        super().__init__()
        self.first = torch.nn.Linear(3, 4)
        self.second = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


INPUTS = [Input(name="x", shape=(5, 3), axes="bf")]


@pytest.mark.parametrize("method", METHODS)
def test_methods(method):
    """Loss, gradients, moments, updates of every step, with each method."""
    report = parity.check(Small, TorchSmall, INPUTS, ["trajectory"], methods=[method])
    report.raise_if_failed()


@pytest.mark.parametrize(
    ("name", "method"),
    [("vae", "sgd nesterov"), ("rnn", "rmsprop centered"), ("rnn", "nadam"), ("rnn", "radam")],
)
def test_statistics_and_draws(name, method):
    """With batch statistics and sampling, and with dropout between recurrent layers."""
    parity.check_architecture(name, "tiny", ["trajectory"], [method]).raise_if_failed()


def test_all_are_named():
    """No optimizer and no schedule goes untried, and both sides know the same."""
    assert {method.optimizer for method in METHODS.values()} == set(optimizers.BY_NAME)
    assert optimizers.BY_NAME.keys() == torch_optimizers.BY_NAME.keys()
    used = {method.schedule for method in METHODS.values()} - {None}
    assert used == set(torch_schedules.BY_NAME) - {"sequential_lr"}  # made of the others
    assert all(hasattr(schedules, name) for name in torch_schedules.BY_NAME)


def test_steps_are_not_one(monkeypatch):
    """A fault that begins late is found, at its step."""
    plain = optimizers.sgd(0.05)
    late = plain.update

    def faulty(grads, state, params=None, **more):
        updates, after = late(grads, state, params)
        scale = 1 + 1e-6 * (after.step == STEPS)
        return jax.tree.map(lambda update: update * scale, updates), after

    monkeypatch.setattr(
        parity.trajectory.Method, "flax", lambda self: plain._replace(update=faulty)
    )
    (row,) = parity.check(Small, TorchSmall, INPUTS, ["trajectory"], methods=["sgd"]).rows
    assert not row.passed
    assert f"in step {STEPS} of sgd" in row.worst


def _step(**fields):
    empty = {name: {} for name in Step._fields}
    return Step(**{**empty, **fields})


def test_noise_counts_little():
    """Where a gradient is rounding noise the update may be anything; elsewhere it may not."""
    gradients = {"w": np.array([1.0, 1e-17])}
    truth = _step(gradients=gradients, updates={"w": np.array([0.1, 1e-3])})
    noisy = _step(gradients=gradients, updates={"w": np.array([0.1, -1e-3])})
    wrong = _step(gradients=gradients, updates={"w": np.array([0.1 + 1e-8, 1e-3])})
    assert compare_steps(truth, noisy).error < 1e-13
    assert compare_steps(truth, wrong).error > 1e-8


def test_each_slot_has_its_scale():
    """A small slot is not hidden by a large one."""
    truth = _step(moments={"a of w": np.array([1e6]), "b of w": np.array([1e-6])})
    other = _step(moments={"a of w": np.array([1e6]), "b of w": np.array([1.1e-6])})
    found = compare_steps(truth, other)
    assert found.error > 0.09
    assert found.worst == "moment b of w"


def test_unknown_method():
    """A method that is not there is named."""
    with pytest.raises(KeyError, match="method 'adamm' is unknown"):
        parity.check(Small, TorchSmall, INPUTS, ["trajectory"], methods=["adamm"])
