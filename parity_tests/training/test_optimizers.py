"""Optimizers against torch.optim: every parameter and slot after every step, in float64."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from flaxnets.parity.compare import compare
from flaxnets.training import optimizers
from torch_ref.training.optimizers import BY_NAME

STEPS = 12
BOUND = 1e-10  # of the update, so that a wrong step cannot hide behind a large parameter
DECAY = {"weight_decay": 0.1}
BETAS = {"betas": (0.5, 0.99)}
CASES = [
    ("sgd", {}),
    ("sgd", {"momentum": 0.9}),
    ("sgd", {"momentum": 0.9, "dampening": 0.3}),
    ("sgd", {"momentum": 0.9, "nesterov": True}),
    ("sgd", {"momentum": 0.9, "nesterov": True, "maximize": True, **DECAY}),
    ("sgd", {"momentum": 0.9, "dampening": 0.3, "maximize": True, **DECAY}),
    ("sgd", DECAY),
    ("adam", {}),
    ("adam", {"amsgrad": True}),
    ("adam", {"eps": 1e-3, **BETAS, **DECAY}),
    ("adam", {"betas": (0.0, 0.9)}),
    ("adam", {"betas": (0.9, 0.0), "maximize": True}),
    ("adam", {"decoupled_weight_decay": True, "amsgrad": True, "maximize": True, **DECAY}),
    ("adamw", {}),
    ("adamw", {"weight_decay": 0.0}),
    ("adamw", {"weight_decay": 0.3, "amsgrad": True, "maximize": True, **BETAS}),
    ("rmsprop", {}),
    ("rmsprop", {"momentum": 0.9}),
    ("rmsprop", {"centered": True, "alpha": 0.7}),
    ("rmsprop", {"centered": True, "momentum": 0.9, "eps": 1e-3, "maximize": True, **DECAY}),
    ("adagrad", {}),
    ("adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.3, "eps": 1e-3}),
    ("adagrad", {"lr_decay": 0.1, "maximize": True, **DECAY}),
    ("adadelta", {}),
    ("adadelta", {"rho": 0.5, "eps": 1e-3, "maximize": True, **DECAY}),
    ("adamax", {}),
    ("adamax", {"eps": 1e-2, "maximize": True, **BETAS, **DECAY}),
    ("nadam", {}),
    ("nadam", {"momentum_decay": 0.1, "maximize": True, **BETAS, **DECAY}),
    ("nadam", {"decoupled_weight_decay": True, "eps": 1e-3, **DECAY}),
    ("radam", {}),
    ("radam", {"betas": (0.9, 0.6), "maximize": True, **DECAY}),
    ("radam", {"betas": (0.9, 0.0)}),
    ("radam", {"decoupled_weight_decay": True, "eps": 1e-3, **BETAS, **DECAY}),
]


def _gradients(rng, shapes, step):
    """A matrix; a vector that begins late; one whose gradient is always zero."""
    matrix, late, still = (rng.standard_normal(shape) for shape in shapes)
    return [matrix, late * (step > 3), still * 0]


def _slots(state, of_torch):
    """Both sides' slots by name and parameter; numbers of the whole state belong to each."""
    held = state._asdict()
    held = {name: value for name, value in held.items() if value is not None}
    ours = {
        (name, index): np.asarray(value[index] if isinstance(value, list) else value)
        for name, value in held.items()
        for index in range(3)
    }
    theirs = {
        (name, index): value.numpy().copy()
        for index, slots in of_torch.items()
        for name, value in slots.items()
    }
    for index in range(3):
        # torch's SGD does not count, and its others count in float32.
        count = ours.pop(("step", index))
        assert count.dtype == np.int32
        assert count == theirs.pop(("step", index), count)
    return ours, theirs


def _check_trajectory(name, ours_options, theirs_options, schedule=lambda optimizer: None):
    rng = np.random.default_rng(0)
    shapes = (3, 4), (2,), (5,)
    start = [rng.standard_normal(shape) for shape in shapes]
    with jax.enable_x64(True):
        ours = [jnp.asarray(value) for value in start]
        theirs = [torch.tensor(value, requires_grad=True) for value in start]
        optimizer = optimizers.BY_NAME[name](**ours_options)
        reference = BY_NAME[name](theirs, **theirs_options)
        scheduler = schedule(reference)
        state, before = optimizer.init(ours), start
        update = jax.jit(optimizer.update)
        for step in range(STEPS):
            grads = _gradients(rng, shapes, step)
            updates, state = update(grads, state, ours)
            ours = optax.apply_updates(ours, updates)
            for parameter, grad in zip(theirs, grads, strict=True):
                parameter.grad = torch.tensor(grad)
            reference.step()
            if scheduler:
                scheduler.step()
            after = [value.detach().numpy().copy() for value in theirs]
            found = compare(
                {str(i): after[i] - before[i] for i in range(3)},
                {str(i): np.asarray(ours[i]) - before[i] for i in range(3)},
            )
            assert found.error < BOUND, (step, found)
            our_slots, their_slots = _slots(state, reference.state_dict()["state"])
            assert our_slots.keys() == their_slots.keys()
            if our_slots:
                found = compare(their_slots, our_slots)
                assert found.error < BOUND, (step, found)
            before = after


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_trajectory(name, options):
    """The same steps from the same gradients, some of them zero; the same slots, and no more."""
    _check_trajectory(name, {"lr": 0.05, **options}, {"lr": 0.05, **options})


@pytest.mark.parametrize("name", BY_NAME)
def test_schedule(name):
    """A schedule as the rate, decay included, is torch's scheduler stepped after each step."""
    _check_trajectory(
        name,
        {"lr": lambda count: 0.05 * jnp.exp(np.log(0.7) * count), **DECAY},
        {"lr": 0.05, **DECAY},
        lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7),
    )


@pytest.mark.parametrize("name", ["adam", "nadam", "radam"])
def test_float32_keeps_its_digits(name):
    """In float32 the first 40 updates are as near to float64 as torch's own, twice at most."""
    grads = np.random.default_rng(1).standard_normal((40, 7)).astype(np.float32)

    def torchs(dtype):
        parameter = torch.zeros(7, dtype=dtype, requires_grad=True)
        reference, found = BY_NAME[name]([parameter], lr=1.0), []
        for grad in grads:
            with torch.no_grad():
                parameter.zero_()  # so that it holds one update, unrounded by a sum
            parameter.grad = torch.tensor(grad, dtype=dtype)
            reference.step()
            found.append(parameter.detach().numpy().astype(np.float64))
        return np.stack(found)

    optimizer = optimizers.BY_NAME[name](lr=1.0)
    state, ours = optimizer.init([jnp.zeros(7)]), []
    update = jax.jit(optimizer.update)
    for grad in grads:
        (change,), state = update([grad], state)
        ours.append(np.asarray(change, np.float64))
    truth = torchs(torch.float64)
    scale = np.abs(truth).max(1)
    theirs_off = (np.abs(torchs(torch.float32) - truth).max(1) / scale).max()
    ours_off = (np.abs(np.stack(ours) - truth).max(1) / scale).max()
    assert ours_off < max(2 * theirs_off, 8 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("name", BY_NAME)
def test_dtypes_stay(name):
    """Updates and slots of bfloat16 parameters are bfloat16, whatever a schedule returns."""
    params = [jnp.ones(3, jnp.bfloat16)]
    optimizer = optimizers.BY_NAME[name](lr=lambda count: jnp.float32(0.1), weight_decay=0.1)
    before = optimizer.init(params)
    updates, after = optimizer.update(params, before, params)
    assert updates[0].dtype == jnp.bfloat16
    dtypes = [jax.tree.map(lambda leaf: leaf.dtype, state) for state in (before, after)]
    assert dtypes[0] == dtypes[1]


@pytest.mark.parametrize("name", BY_NAME)
def test_defaults_are_torchs(name):
    """Names, their order and the defaults are those of torch.optim."""
    theirs = inspect.signature(BY_NAME[name]).parameters
    ours = inspect.signature(optimizers.BY_NAME[name]).parameters
    for parameter in ours.values():
        assert parameter.default == theirs[parameter.name].default, parameter
    free = [key for key, value in ours.items() if value.kind is value.POSITIONAL_OR_KEYWORD]
    assert ["params", *free] == list(theirs)[: len(free) + 1]
    left_out = {"capturable", "differentiable", "foreach", "fused"}  # how, and not what
    assert set(theirs) - set(ours) <= {"params", *left_out}


WRONG = [
    ("sgd", {"nesterov": True}, "nesterov needs a momentum above 0, not 0"),
    (
        "sgd",
        {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
        r"nesterov needs a dampening of 0, not 0\.1",
    ),
    ("sgd", {"momentum": -0.9}, r"momentum -0\.9 is not a number of 0 or more"),
    ("rmsprop", {"alpha": -0.1}, r"alpha -0\.1 is not a number of 0 or more"),
    ("rmsprop", {"momentum": -0.1}, r"momentum -0\.1 is not a number of 0 or more"),
    ("adagrad", {"lr_decay": -1.0}, r"lr_decay -1\.0 is not a number of 0 or more"),
    ("adagrad", {"initial_accumulator_value": -1.0}, "initial_accumulator_value -1.0 is not"),
    ("adadelta", {"rho": 1.5}, r"rho 1\.5 is above 1; use 0 to 1"),
    ("adadelta", {"rho": -0.5}, r"rho -0\.5 is not a number of 0 or more"),
    ("nadam", {"momentum_decay": -1.0}, r"momentum_decay -1\.0 is not a number of 0 or more"),
    *[(name, {"lr": -0.1}, r"lr -0\.1 is not a number of 0 or more") for name in BY_NAME],
    *[
        (name, {"weight_decay": -0.1}, r"weight_decay -0\.1 is not a number of 0 or more")
        for name in BY_NAME
    ],
    *[
        (name, {"eps": -0.1}, r"eps -0\.1 is not a number of 0 or more")
        for name in BY_NAME
        if name != "sgd"
    ],
    *[
        (name, {"betas": betas}, rf"betas\[{index}\] .* is out of range; use 0 or more and less")
        for name in ("adam", "adamw", "adamax", "nadam", "radam")
        for index, betas in enumerate([(1.0, 0.9), (0.9, -0.1)])
    ],
]


@pytest.mark.parametrize(("name", "options", "message"), WRONG, ids=str)
def test_wrong_options(name, options, message):
    """Both sides refuse the same options."""
    with pytest.raises(ValueError, match=message):
        optimizers.BY_NAME[name](**options)
    with pytest.raises(ValueError, match=r"Invalid|Nesterov"):
        BY_NAME[name]([torch.zeros(1)], **options)


def test_decay_needs_parameters():
    """Weight decay without the parameters is one line."""
    optimizer = optimizers.adamw()
    grads = [jnp.ones(1)]
    with pytest.raises(ValueError, match=r"weight_decay 0\.01 needs params; give them to update"):
        optimizer.update(grads, optimizer.init(grads))
