"""The engines: both backends take the same steps, and both go on from their states bit by bit."""

import json

import jax
import numpy as np
import pytest

import flaxnets
from flaxnets import data
from flaxnets.experiment.flax_engine import FlaxEngine
from flaxnets.experiment.recipe import Recipe
from flaxnets.experiment.torch_engine import TorchEngine
from flaxnets.swap.handover import HandoverError

LAYERS = {"num_encoder_layers": 1, "num_decoder_layers": 1}
NETWORKS = {
    "lenet": ({"image_size": 16}, "digits"),
    "transformer": ({"d_model": 6, "nhead": 2, "dim_feedforward": 7, **LAYERS}, "co2"),
    "vae": ({"in_shape": (1, 8, 8)}, "digits"),
    "gan": ({"in_shape": (1, 8, 8), "width": 2}, "digits"),
    "rnn": ({"input_size": 4, "hidden_size": 5, "output_size": 1, "num_layers": 2}, "sunspots"),
}
TOGETHER = {
    "lr": 0.01,
    "accumulate": 2,
    "clip_norm": 0.5,
    "ema": 0.9,
    "warmup": 2,
}


def _engine(kind, name, **options):
    fields, source = NETWORKS[name]
    spec = flaxnets.spec(name, **fields)
    chosen = data.fit(data.load(source), spec.examples(1), spec.targets(1))
    given = {"steps": 6, "batch_size": 8, "steps_per_dispatch": 1, **options}
    return kind(spec, Recipe(**given).settled(spec, len(chosen.train_targets)), chosen)


def _losses(engine, until):
    found = []
    engine.advance(until, lambda step, metrics: found.append(metrics["loss"]), lambda: False)
    return found


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("transformer", TOGETHER | {"schedule": "cosine"}),
        ("transformer", TOGETHER | {"schedule": "steps"}),
        ("lenet", TOGETHER | {"schedule": "linear", "label_smoothing": 0.1}),
        ("vae", {"remat": True}),
        ("gan", {"accumulate": 2}),
    ],
)
def test_backends_agree(name, options):
    """Six losses of both backends, with dropout and noise, differ by float32 rounding.

    Rounding of 1e-7 grows over six steps of Adam; one wrong mask changes the loss by 1e-2.
    """
    ours, theirs = (
        _losses(_engine(kind, name, **options), 6) for kind in (FlaxEngine, TorchEngine)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("kind", [FlaxEngine, TorchEngine])
@pytest.mark.parametrize("schedule", ["cosine", "steps"])
def test_goes_on_from_its_state(kind, schedule):
    """Three steps, then three more by another engine that has loaded the state: equal bits."""
    options = TOGETHER | {"schedule": schedule}
    first, second = (_engine(kind, "transformer", **options) for _ in range(2))
    _losses(first, 3)
    arrays, rest = jax.tree.map(np.array, first.state()[0]), first.state()[1]
    losses = _losses(first, 6)
    if kind is FlaxEngine:
        arrays = jax.tree.map(jax.numpy.array, arrays)
    assert [x.shape for x in jax.tree.leaves(second.like())] == [
        x.shape for x in jax.tree.leaves(arrays)
    ]
    second.load_state(arrays, json.loads(json.dumps(rest)))  # as a checkpoint keeps it
    assert _losses(second, 6) == losses
    for one, other in zip(
        jax.tree.leaves(first.state()[0]), jax.tree.leaves(second.state()[0]), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["vae", "rnn"])
def test_rematerialisation_changes_nothing_in_torch(name):
    """What torch computes again draws the same numbers and moves the statistics once."""
    engines = [_engine(TorchEngine, name, remat=remat) for remat in (False, True)]
    losses = [_losses(engine, 4) for engine in engines]
    assert losses[0] == losses[1]
    for one, other in zip(*(jax.tree.leaves(engine.state()[0]) for engine in engines), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "steps"])
def test_more_steps(schedule):
    """Resumed with more steps, both backends follow the schedule of the longer run.

    torch's schedulers carry their length in their state, and each rate is made of the last.
    """
    options = {"schedule": schedule, "warmup": 2, "lr": 0.01, "optimizer": "sgd"}
    rates = []
    for kind in (FlaxEngine, TorchEngine):
        first, second = (_engine(kind, "lenet", steps=steps, **options) for steps in (4, 12))
        _losses(first, 4)
        arrays, rest = first.state()
        second.load_state(arrays, rest)
        rates.append(second.handover().optimizers[""].groups[0]["lr"])
    np.testing.assert_allclose(*rates, rtol=1e-6)
    assert rates[0] > 0.001  # the shorter schedules are at their ends


def test_average_is_asked_for():
    """A state without the average that a run keeps is refused, and nothing is changed."""
    state = _engine(TorchEngine, "lenet", seed=1).handover()
    for kind in (FlaxEngine, TorchEngine):
        engine = _engine(kind, "lenet", ema=0.9)
        before = engine.handover().weights
        with pytest.raises(HandoverError, match="an average of the weights is missing"):
            engine.take_over(state)
        for name, value in engine.handover().weights.items():
            np.testing.assert_array_equal(value, before[name])
