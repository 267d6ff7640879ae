"""The training step: pure, donated, and the loop without jit gives the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flaxnets
from flaxnets import bridge
from flaxnets.training import Phase, TrainStep, objectives, optimizers

BATCH = jnp.ones((4, 7)), jnp.arange(4) % 3


def _step(**options):
    model = flaxnets.create("feedforward", variant="tiny", softmax=False)
    return model, TrainStep(
        model, Phase(objectives.classification(), optimizers.adam(0.1)), **options
    )


def test_agrees_with_nnx_optimizer():
    """The flat step and Flax's own `nnx.Optimizer` under `nnx.jit` take the same steps."""
    model, step = _step()
    state = step.state
    for _ in range(3):
        state, _ = step(state, BATCH)

    optimizer = nnx.Optimizer(model, optimizers.adam(0.1), wrt=nnx.Param)

    @nnx.jit
    def tutorial_step(model, optimizer):
        grads = nnx.grad(lambda model: objectives.classification()(model, BATCH, None)[0])(model)
        optimizer.update(model, grads)

    for _ in range(3):
        tutorial_step(model, optimizer)
    for name, value in bridge.state_dict(step.model(state)).items():
        np.testing.assert_allclose(value, bridge.state_dict(model)[name], rtol=1e-5, atol=1e-7)


def test_state_is_donated_and_the_model_is_not():
    """A used state is gone; the model that the step was made of is whole."""
    model, step = _step()
    before = bridge.state_dict(model)
    state, _ = step(step.state, BATCH)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(step.state))
    with pytest.raises((RuntimeError, ValueError), match="deleted"):
        step(step.state, BATCH)
    for name, value in bridge.state_dict(model).items():
        np.testing.assert_array_equal(value, before[name])
    trained = step.model(state)
    step(state, BATCH)
    assert np.isfinite(bridge.state_dict(trained)["linear1.weight"]).all()


def test_many_steps_in_one_dispatch():
    """A scan over batches and single steps agree."""
    _, step = _step()
    batches = jax.tree.map(lambda x: jnp.stack([x, x + 1]) % 3, BATCH)
    scanned, metrics = step.many(jax.tree.map(jnp.copy, step.state), batches)
    state = step.state
    for index in range(2):
        state, _ = step(state, jax.tree.map(lambda x, index=index: x[index], batches))
    assert metrics["loss"].shape == (2,)
    for one, other in zip(jax.tree.leaves(scanned), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_one_compilation_a_shape():
    """A step is compiled once for a shape of batch."""
    _, step = _step()
    state = step.state
    for _ in range(3):
        state, _ = step(state, BATCH)
    assert step._jitted._cache_size() == 1


def test_randomness_follows_seed_and_step():
    """An objective's random numbers depend on the seed and the step, and on nothing else."""

    def draw(model, batch, rngs):
        return objectives.classification()(model, batch, rngs)[0], {"drawn": rngs.uniform(())}

    def drawn(seed):
        model = flaxnets.create("feedforward", variant="tiny")
        step = TrainStep(model, Phase(draw, optimizers.sgd()), seed=seed)
        state, numbers = step.state, []
        for _ in range(3):
            state, metrics = step(state, BATCH)
            numbers.append(float(metrics["drawn"]))
        return numbers

    assert drawn(0) == drawn(0)
    assert len({*drawn(0), *drawn(1)}) == 6
