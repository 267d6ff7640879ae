"""What a recipe says, to JSON and back, of a run that is resumed, and of the learning rate."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import flaxnets
from flaxnets.experiment.flax_engine import _optax
from flaxnets.experiment.recipe import Recipe
from flaxnets.experiment.torch_engine import _torch_schedule
from flaxnets.training import schedules
from flaxnets.training.loop import TrainingError
from torch_ref.random import key as torch_key

SPEC = flaxnets.spec("mlp", "tiny")


def test_json():
    """Every field comes back, paths and pairs as what they were."""
    recipe = Recipe(data_dir=Path("a/b"), betas=(0.5, 0.9), ema=0.9, schedule="linear", steps=3)
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "steps"])
@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_rates(schedule, warmup):
    """The rate of every step is the same in both backends; plain descent shows it."""
    recipe = Recipe(optimizer="sgd", lr=0.5, schedule=schedule, warmup=warmup, steps=12)
    recipe = recipe.settled(SPEC, 100)
    ours = _optax(recipe)
    weight = [jnp.zeros(())]
    state = ours.init(weight)
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    scheduler = _torch_schedule(recipe, optimizer)
    rates = []
    for _ in range(12):
        updates, state = ours.update([jnp.ones(())], state, weight)
        rates.append((-float(updates[0]), optimizer.param_groups[0]["lr"]))
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    np.testing.assert_allclose(*zip(*rates, strict=True), rtol=1e-5, atol=1e-7)
    assert (len({round(rate, 6) for rate, _ in rates}) > 1) == (
        schedule != "constant" or warmup > 1
    )


def test_resumed():
    """Of a run that is resumed steps may be more; anything else that differs is named."""
    first = Recipe(lr=0.1, steps=10)
    assert first.resumed(Recipe(steps=20)) == Recipe(lr=0.1, steps=20)
    assert first.resumed(Recipe()) == first
    with pytest.raises(TrainingError, match=r"lr 0.2 is not the 0.1 of the run"):
        first.resumed(Recipe(lr=0.2))


def test_resumed_elsewhere():
    """In another folder steps are further ones, and the backend may be another."""
    first = Recipe(backend="flax", lr=0.1, steps=10)
    assert first.resumed(Recipe(), taken=4) == first
    assert first.resumed(Recipe(steps=3), taken=4).steps == 7
    assert first.resumed(Recipe(backend="torch"), taken=4).backend == "torch"
    with pytest.raises(TrainingError, match="has taken its 10 steps; say how many more with --st"):
        first.resumed(Recipe(), taken=10)
    with pytest.raises(TrainingError, match=r"backend torch is not the flax of the run .* --out"):
        first.resumed(Recipe(backend="torch"))
    torch_run = Recipe(backend="torch", steps=10)
    assert torch_run.resumed(Recipe()) == torch_run  # which "flax" by default would not be
    with pytest.raises(TrainingError, match="backend flax is not the torch"):
        torch_run.resumed(Recipe(backend="flax"))


def test_horizon():
    """A schedule is as long as the run, whatever that is extended to, unless its length is said."""
    first = Recipe(steps=10, schedule="cosine").settled(SPEC, 100)
    told = Recipe(steps=10, schedule="cosine", schedule_steps=20).settled(SPEC, 100)
    assert first.schedules() == [("cosine_annealing_lr", {"T_max": 10})]
    assert told.schedules() == [("cosine_annealing_lr", {"T_max": 20})]
    for taken in (None, 10):
        asked = Recipe(steps=15 if taken is None else 5)
        assert first.resumed(asked, taken).horizon == 15
        assert told.resumed(asked, taken).horizon == 20
        longer = Recipe(steps=asked.steps + 10, schedule_steps=30)
        with pytest.raises(TrainingError, match="steps 25 are more than the 20 that the schedule"):
            told.resumed(replace(longer, schedule_steps=None), taken)
        assert told.resumed(longer, taken).horizon == 30


def test_settled():
    """Epochs become steps, and a batch is what its parts make equal."""
    settled = Recipe(epochs=3, accumulate=4).settled(SPEC, 50)
    assert (settled.batch_size, settled.steps, settled.epochs) == (48, 3, None)


def test_warm_up():
    """The rate rises evenly to the whole at the last step of the warm-up, then falls from there."""
    (name, told), *_ = Recipe(steps=8, warmup=4, schedule="cosine").schedules()
    rates = [float(getattr(schedules, name)(0.4, **told)(step)) for step in range(4)]
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.4], rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": -1}, "seed -1 is too small; use 0 or more"),
        ({"seed": 2**63}, f"seed {2**63} is too large; use 4294967295 or less"),
        ({"warmup": 2**31}, "warmup 2147483648 is too large; use 2147483647 or less"),
        ({"steps": 10**400}, "is too large"),
        ({"betas": (0.9, 1.0)}, r"betas \(0.9, 1.0\) are not from 0 to below 1"),
        ({"betas": (float("nan"), 0.9)}, "betas"),
        ({"betas": (float("inf"), 0.9)}, "betas"),
        ({"betas": (0.9, -0.1)}, "betas"),
        ({"lr": float("nan")}, "lr nan is not a positive number"),
        ({"noise": float("inf")}, "noise inf is not 0 or a positive number"),
        ({"weight_decay": float("nan")}, "weight_decay nan is not 0 or"),
        ({"ema": float("nan")}, "ema nan is not between"),
        ({"label_smoothing": float("nan")}, "label_smoothing nan is not between"),
    ],
    ids=str,
)
def test_ranges(given, message):
    """What is out of range is named, in one line."""
    with pytest.raises(TrainingError, match=message) as caught:
        Recipe(**given)
    assert "\n" not in str(caught.value)


def test_largest():
    """The largest values are taken, and the largest seed by both backends."""
    largest = Recipe(warmup=2**31 - 1, seed=2**32 - 1, betas=(0, 0.999))
    with jax.enable_x64(True):
        key = jax.random.key_data(jax.random.key(largest.seed))
    assert key.tolist() == torch_key(largest.seed).tolist() == [0, 2**32 - 1]
    assert torch.Generator().manual_seed(largest.seed).initial_seed() == largest.seed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"noise": 0.1}, "noise is of reconstruction; mlp is trained for classification"),
        ({"schedule_steps": 100, "steps": 10}, "schedule_steps 100 are of a schedule or a warm-up"),
        ({"epochs": 2**31 - 1}, "steps 6442450941 is too large"),
    ],
    ids=str,
)
def test_of_no_use(given, message):
    """An option that would change nothing is refused once the network is known."""
    with pytest.raises(TrainingError, match=message):
        Recipe(batch_size=32, **given).settled(SPEC, 100)
