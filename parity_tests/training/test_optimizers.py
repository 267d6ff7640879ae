"""Optimizers against torch.optim: every parameter after every step, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from flaxnets.parity.compare import compare
from flaxnets.training import optimizers
from torch_ref.training.optimizers import BY_NAME

STEPS = 20
BOUND = 1e-10  # of the update, so that a wrong step cannot hide behind a large parameter
CASES = [
    ("sgd", {}),
    ("sgd", {"momentum": 0.9}),
    ("sgd", {"momentum": 0.9, "nesterov": True}),
    ("sgd", {"momentum": 0.9, "weight_decay": 0.1}),
    ("sgd", {"weight_decay": 0.1}),
    ("adam", {}),
    ("adam", {"betas": (0.5, 0.99), "eps": 1e-3, "weight_decay": 0.1}),
    ("adamw", {}),
    ("adamw", {"weight_decay": 0.3}),
]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_trajectory(name, options):
    """Twenty steps on the same gradients, gradients of zero among them."""
    rng = np.random.default_rng(0)
    start = {"w": rng.standard_normal((3, 4)), "b": np.zeros(2)}
    with jax.enable_x64(True):
        ours = {name: jnp.asarray(value) for name, value in start.items()}
        theirs = {name: torch.tensor(value, requires_grad=True) for name, value in start.items()}
        optimizer = optimizers.BY_NAME[name](lr=0.05, **options)
        reference = BY_NAME[name](theirs.values(), lr=0.05, **options)
        state, before = optimizer.init(ours), start
        update = jax.jit(optimizer.update)
        for step in range(STEPS):
            grads = {key: rng.standard_normal(value.shape) for key, value in start.items()}
            grads["b"] *= step > 3
            updates, state = update(grads, state, ours)
            ours = optax.apply_updates(ours, updates)
            for key, value in theirs.items():
                value.grad = torch.tensor(grads[key])
            reference.step()
            after = {key: value.detach().numpy().copy() for key, value in theirs.items()}
            found = compare(
                {key: after[key] - before[key] for key in after},
                {key: np.asarray(ours[key]) - before[key] for key in after},
            )
            assert found.error < BOUND, (step, found)
            before = after


def test_defaults_are_torchs():
    """The defaults are those of torch.optim."""
    import inspect

    for name, ours in optimizers.BY_NAME.items():
        theirs = inspect.signature(BY_NAME[name]).parameters
        for parameter in inspect.signature(ours).parameters.values():
            assert parameter.default == theirs[parameter.name].default, (name, parameter)


def test_nesterov_needs_momentum():
    """Both sides refuse nesterov without momentum."""
    with pytest.raises(ValueError, match="nesterov needs a momentum above 0, not 0"):
        optimizers.sgd(0.1, nesterov=True)
    with pytest.raises(ValueError, match="Nesterov"):
        BY_NAME["sgd"]([torch.zeros(1)], lr=0.1, nesterov=True)
