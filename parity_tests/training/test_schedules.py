"""Schedules against torch.optim.lr_scheduler: the rate at every count, in float64."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import flaxnets
from flaxnets.parity.compare import relative_error
from flaxnets.tasks import classification
from flaxnets.training import Phase, TrainStep, optimizers, schedules
from torch_ref.training import optimizers as torch_optimizers
from torch_ref.training.schedules import BY_NAME

LR = 0.3
CASES = [
    ("step_lr", {"step_size": 4}),
    ("step_lr", {"step_size": 1, "gamma": 0.7}),
    ("multi_step_lr", {"milestones": [3, 5, 5, 11], "gamma": 0.5}),
    ("multi_step_lr", {"milestones": []}),
    ("multi_step_lr", {"milestones": [0, 2]}),
    ("exponential_lr", {"gamma": 0.9}),
    ("exponential_lr", {"gamma": 1.1}),
    ("cosine_annealing_lr", {"T_max": 7}),
    ("cosine_annealing_lr", {"T_max": 6, "eta_min": 0.02}),
    ("cosine_annealing_lr", {"T_max": 1}),
    ("linear_lr", {}),
    ("linear_lr", {"start_factor": 0.1, "end_factor": 0.8, "total_iters": 7}),
    ("linear_lr", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 4}),
]
CYCLES = [
    {"total_steps": 20},
    {"total_steps": 20, "anneal_strategy": "linear", "pct_start": 0.55},
    {"total_steps": 23, "three_phase": True, "div_factor": 5.0, "final_div_factor": 10.0},
    {"total_steps": 20, "three_phase": True, "pct_start": 0.7, "anneal_strategy": "linear"},
    {"total_steps": 12, "pct_start": 0.0},
    {"total_steps": 12, "pct_start": 1.0},
]


def _optimizer(**options):
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR, **options)


def _rates(optimizer, scheduler, count, key="lr"):
    found = [optimizer.param_groups[0][key]]
    for _ in range(count - 1):
        optimizer.step()
        scheduler.step()
        found.append(optimizer.param_groups[0][key])
    return np.array(found)


def _ours(schedule, count):
    with jax.enable_x64(True):
        return np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(count)))


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_schedule(name, options):
    """Three periods of the longest case, and the same value from a plain number."""
    optimizer = _optimizer()
    theirs = _rates(optimizer, BY_NAME[name](optimizer, **options), 22)
    schedule = getattr(schedules, name)(LR, **options)
    ours = _ours(schedule, 22)
    assert ours.dtype == np.float64
    assert relative_error(theirs, ours) < 1e-12
    assert float(schedule(3)) == pytest.approx(theirs[3], rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("first", ["linear_lr", "step_lr"])
def test_sequential(first):
    """A warm-up, then a cosine, then steps: each counts from its own beginning."""
    parts = [
        (first, {"total_iters": 4} if first == "linear_lr" else {"step_size": 2}),
        ("cosine_annealing_lr", {"T_max": 5}),
        ("step_lr", {"step_size": 3, "gamma": 0.5}),
    ]
    optimizer = _optimizer()
    theirs = BY_NAME["sequential_lr"](
        optimizer, [BY_NAME[name](optimizer, **options) for name, options in parts], [4, 10]
    )
    ours = schedules.sequential_lr(
        [getattr(schedules, name)(LR, **options) for name, options in parts], [4, 10]
    )
    assert relative_error(_rates(optimizer, theirs, 22), _ours(ours, 22)) < 1e-12


@pytest.mark.parametrize("options", CYCLES, ids=str)
def test_one_cycle(options):
    """The rate and the momentum of a cycle, which then stays at its end."""
    steps = options["total_steps"]
    moving = {"base_momentum": 0.7, "max_momentum": 0.9}
    of_lr = {"div_factor", "final_div_factor"}
    shared = {name: value for name, value in options.items() if name not in of_lr}
    for key, ours in {
        "lr": schedules.one_cycle_lr(0.4, **options),
        "momentum": schedules.one_cycle_momentum(**shared, **moving),
    }.items():
        optimizer = _optimizer(momentum=0.9)
        scheduler = BY_NAME["one_cycle_lr"](optimizer, 0.4, **options, **moving)
        found = _ours(ours, steps + 5)
        assert relative_error(_rates(optimizer, scheduler, steps, key), found[:steps]) < 1e-12
        np.testing.assert_array_equal(found[steps:], found[steps - 1])


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam", "adamw", "adamax", "nadam", "radam"])
def test_one_cycle_trains(name):
    """An optimizer whose rate and momentum or first beta both cycle takes torch's steps."""
    rng = np.random.default_rng(0)
    start, grads = rng.standard_normal(5), rng.standard_normal((10, 5))
    key = "momentum" if name in ("sgd", "rmsprop") else "betas"
    momentum = schedules.one_cycle_momentum(10, base_momentum=0.6)
    options = {key: momentum if key == "momentum" else (momentum, 0.99)}
    theirs = torch.tensor(start, requires_grad=True)
    their_options = {key: 0.9 if key == "momentum" else (0.9, 0.99)}
    reference = torch_optimizers.BY_NAME[name]([theirs], lr=LR, **their_options)
    cycle = {"max_lr": 0.4, "total_steps": 10, "final_div_factor": 10.0}
    scheduler = BY_NAME["one_cycle_lr"](reference, **cycle, base_momentum=0.6)
    with jax.enable_x64(True):
        optimizer = optimizers.BY_NAME[name](lr=schedules.one_cycle_lr(**cycle), **options)
        ours = jnp.asarray(start)
        state, update = optimizer.init(ours), jax.jit(optimizer.update)
        for grad in grads:
            change, state = update(grad, state, ours)
            before, ours = np.asarray(ours), ours + change
            past, theirs.grad = theirs.detach().numpy().copy(), torch.tensor(grad)
            reference.step()
            scheduler.step()
            found = relative_error(theirs.detach().numpy() - past, np.asarray(ours) - before)
            assert found < 1e-10


PLATEAUS = [
    {"patience": 1},
    {"patience": 0, "cooldown": 2},
    {"patience": 1, "factor": 0.5, "min_lr": 0.04},
    {"patience": 0, "factor": 0.5, "eps": 0.05},
    {"patience": 1, "threshold": 0.2},
    {"patience": 1, "threshold": 0.2, "threshold_mode": "abs"},
    {"patience": 1, "mode": "max"},
    {"patience": 1, "mode": "max", "threshold": 0.1, "threshold_mode": "abs", "cooldown": 1},
]


@pytest.mark.parametrize("options", PLATEAUS, ids=str)
def test_plateau(options):
    """The rate after every value of a walk, NaN among them, and what the updates become."""
    rng = np.random.default_rng(0)
    values = 3 + np.cumsum(rng.normal(0, 0.3, 60))
    values[30] = np.nan
    reference = _optimizer()
    scheduler = BY_NAME["reduce_lr_on_plateau"](reference, **options)
    with jax.enable_x64(True):
        optimizer = optax.chain(optimizers.sgd(1.0), schedules.reduce_lr_on_plateau(LR, **options))
        state, update = optimizer.init([jnp.ones(1)]), jax.jit(optimizer.update)
        rates = set()
        for value in values:
            change, state = update([jnp.ones(1)], state, value=value)
            assert -float(change[0][0]) == pytest.approx(reference.param_groups[0]["lr"], 1e-12)
            reference.step()
            scheduler.step(value)
            rates.add(reference.param_groups[0]["lr"])
            assert float(state[1].lr) == pytest.approx(reference.param_groups[0]["lr"], 1e-12)
            assert int(state[1].num_bad_epochs) == scheduler.num_bad_epochs
            assert int(state[1].cooldown_counter) == scheduler.cooldown_counter
            assert float(state[1].best) == scheduler.best
    assert len(rates) > 1


def test_plateau_in_a_training_step():
    """The jitted step gives it the loss: a loss that never gets better halves the rate."""
    model = flaxnets.create("feedforward", variant="tiny", softmax=False)
    plateau = schedules.reduce_lr_on_plateau(0.1, factor=0.5, patience=0, threshold=0.9)
    optimizer = optax.chain(optimizers.sgd(1.0), plateau)
    step = TrainStep(model, Phase(classification.objective(), optimizer))
    batch = jnp.ones((4, 7)), jnp.arange(4) % 3
    state, metrics = step(step.state, batch)
    ((_, after),) = step.moments(state)
    assert float(after.best) == float(metrics["loss"])
    for _ in range(2):
        state, _ = step(state, batch)
    ((_, after),) = step.moments(state)
    assert float(after.lr) == pytest.approx(0.025)


def test_names_and_defaults_are_torchs():
    """Arguments are torch's, the rate in place of the optimizer; so are their defaults."""
    for name, theirs in BY_NAME.items():
        wanted = inspect.signature(theirs).parameters
        for parameter in inspect.signature(getattr(schedules, name)).parameters.values():
            if parameter.name not in ("lr", "schedules"):
                default = wanted[parameter.name].default
                if parameter.name == "total_steps":
                    default = inspect.Parameter.empty
                assert parameter.default == default, (name, parameter)


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: schedules.step_lr(1.0, 0), "step_size 0 is below 1"),
        (lambda: schedules.step_lr(1.0, 1, -0.1), r"gamma -0\.1 is not positive"),
        (lambda: schedules.multi_step_lr(1.0, [3, -1]), "milestone -1 is negative"),
        (lambda: schedules.cosine_annealing_lr(1.0, 0), "T_max 0 is below 1"),
        (lambda: schedules.linear_lr(1.0, 0.0), r"start_factor 0\.0 is not above 0 and up to 1"),
        (lambda: schedules.linear_lr(1.0, end_factor=2.0), r"end_factor 2\.0 is not between"),
        (lambda: schedules.linear_lr(1.0, total_iters=0), "total_iters 0 is below 1"),
        (lambda: schedules.sequential_lr([abs], [3]), "1 milestones do not part 1 schedules"),
        (
            lambda: schedules.sequential_lr([abs, abs, abs], [3, 3]),
            r"milestones \[3, 3\] do not rise from 1 on",
        ),
        (lambda: schedules.one_cycle_lr(1.0, 0), "total_steps 0 is below 1"),
        (lambda: schedules.one_cycle_lr(1.0, 9, 1.5), r"pct_start 1\.5 is not between 0 and 1"),
        (
            lambda: schedules.one_cycle_lr(1.0, 10, 0.1),
            r"a phase of pct_start 0\.1 of 10 steps has no length",
        ),
        (
            lambda: schedules.one_cycle_lr(1.0, 9, anneal_strategy="exp"),
            "anneal_strategy 'exp' is neither 'cos' nor 'linear'",
        ),
        (lambda: schedules.reduce_lr_on_plateau(1.0, factor=1.0), r"factor 1\.0 is not between"),
        (lambda: schedules.reduce_lr_on_plateau(1.0, "low"), "mode 'low' is neither 'min' nor"),
        (
            lambda: schedules.reduce_lr_on_plateau(1.0, threshold_mode="per"),
            "threshold_mode 'per' is neither 'rel' nor 'abs'",
        ),
    ],
)
def test_wrong_options(create, message):
    """A wrong option is one line."""
    with pytest.raises(ValueError, match=message):
        create()
