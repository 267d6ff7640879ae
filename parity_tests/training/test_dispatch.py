"""Steps per dispatch: every form trains the same, and the choice is never a slower one."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxnets
from flaxnets import tasks
from flaxnets.data import drawn
from flaxnets.training import Phase, TrainStep, dispatch, optimizers
from flaxnets.training.dispatch import SCANNED, SINGLE, Dispatch


def _step(name, variant="tiny"):
    spec = flaxnets.spec(name, variant)
    phases = tasks.of(spec).objectives(spec).items()
    step = TrainStep(
        flaxnets.build(spec), *[Phase(loss, optimizers.adam(0.01), part) for part, loss in phases]
    )
    return step, [jax.tree.map(jnp.asarray, drawn.batch(spec, 4, seed)) for seed in range(4)]


def _trained(step, batches, how):
    state = jax.tree.map(jnp.copy, step.state)
    if how.form == "single":
        losses = []
        for batch in batches:
            state, metrics = how.of(step)(state, batch)
            losses.append(metrics["loss"])
    else:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
        state, metrics = how.of(step)(state, stacked)
        losses = list(metrics["loss"])
    return [np.asarray(x) for x in (*losses, *jax.tree.leaves(state))]


@pytest.mark.parametrize("name", ["conv_net", "rnn", "transformer_decoder"])
def test_forms_agree(name):
    """Single, scanned and unrolled steps give the same losses and state, to rounding."""
    with jax.enable_x64():
        step, batches = _step(name)
        float64 = lambda x: x.astype("float64") if x.dtype == "float32" else x  # noqa: E731
        step.state, batches = jax.tree.map(float64, (step.state, batches))
        single = _trained(step, batches, SINGLE)
        for how in (Dispatch(4, "scan"), Dispatch(4, "unrolled")):
            for one, other in zip(single, _trained(step, batches, how), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_unrolled_has_no_loop():
    """The unrolled program and the scanned one: only the latter loops."""
    step, batches = _step("feedforward")
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
    assert "while" in step._scanned.lower(step.state, stacked).as_text()
    assert "while" not in step._unrolled.lower(step.state, stacked).as_text()


@pytest.mark.parametrize(("name", "scans"), [("lenet", False), ("vae", False), ("rnn", True)])
def test_no_scan_over_convolutions_on_a_cpu(name, scans):
    """Candidates and fixed dispatches are loops exactly where the step does not convolve."""
    step, (batch, *_) = _step(name)
    seen = []

    def fake(step, batch, candidates, rounds):
        seen.extend(candidates)
        return {one: 1e-3 / one.steps for one in candidates}

    assert dispatch.choose(step, batch, fake) == (SCANNED[-1] if scans else SINGLE)
    assert {one.form for one in seen} == ({"single", "scan"} if scans else set())
    assert dispatch.fixed(step, batch, 5).form == ("scan" if scans else "unrolled")


def test_convolutions_are_found_inside_other_functions():
    """A convolution counts wherever it stands: here in a jitted function in a loop."""
    convolve = jax.jit(lambda x: jnp.convolve(x, jnp.ones(3), mode="same"))

    def objective(model, batch, rngs):
        rows, _ = batch
        outputs, _ = jax.lax.scan(lambda x, _: (convolve(x), None), rows[0], length=2)
        return model(rows).mean() + outputs.mean(), {}

    step = TrainStep(flaxnets.create("mlp", variant="tiny"), Phase(objective, optimizers.sgd()))
    assert not dispatch.may_scan(step, (jnp.ones((2, 16)), None))


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ({1: 1.0, 8: 0.5, 32: 0.6}, 8),
        ({1: 1.0, 8: 0.6, 32: 0.5}, 32),
        ({1: 1.0, 8: 1.0, 32: 1.0}, 1),  # a tie
        ({1: 1.0, 8: 0.96, 32: 0.97}, 1),  # within the noise
        ({1: 1.0, 8: 2.0, 32: 1.5}, 1),
        ({1: 5.0, 8: 1.0, 32: 0.1}, 8),  # 32 steps of 5 ms would be a long dispatch
        ({1: 30.0, 8: 1.0, 32: 1.0}, 1),  # so would any, and nothing else is compiled
    ],
)
def test_choice(times, chosen):
    """The choice is the fastest measured, and single steps where nothing is clearly faster."""
    step, (batch, *_) = _step("feedforward")

    def fake(step, batch, candidates, rounds):
        return {one: times[one.steps] / 1e3 for one in candidates}

    assert dispatch.choose(step, batch, fake).steps == chosen


def test_clock_does_not_change_the_bits():
    """Only a faster dispatch that gives the bits of single steps is chosen."""
    step, (batch, *_) = _step("feedforward")

    def fake(step, batch, candidates, rounds):
        return {one: 1e-3 / one.steps for one in candidates}

    many = step.many

    def rounded(state, batches):
        state, metrics = many(state, batches)
        return state._replace(params=tuple(np.nextafter(x, 1) for x in state.params)), metrics

    assert dispatch.choose(step, batch, fake) == SCANNED[-1]
    with mock.patch.object(step, "many", rounded):
        assert not dispatch.agrees(step, batch, SCANNED[0])
        assert dispatch.choose(step, batch, fake) == SINGLE


def test_probe_leaves_the_state_alone():
    """The step's state after a real probe is the one before it, bit for bit, and usable."""
    step, (batch, *_) = _step("feedforward")
    before = [np.asarray(leaf).copy() for leaf in jax.tree.leaves(step.state)]
    found = dispatch.measure(step, batch, [SINGLE, *SCANNED], 1)
    assert all(0 < seconds < 1 for seconds in found.values())
    for one, other in zip(before, jax.tree.leaves(step.state), strict=True):
        np.testing.assert_array_equal(one, other)
    step(step.state, batch)


def test_fixed():
    """A number of steps that is asked for is what comes out, and one is a single step."""
    step, (batch, *_) = _step("feedforward")
    assert dispatch.fixed(step, batch, 1) == SINGLE
    assert dispatch.fixed(step, batch, 7) == Dispatch(7, "scan")
    with pytest.raises(ValueError, match="dispatch 0 is too small; use 1 or more"):
        dispatch.fixed(step, batch, 0)
