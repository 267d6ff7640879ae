"""The training step: pure, donated, and the loop without jit gives the same."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from torch.optim import swa_utils

import flaxnets
from flaxnets import bridge, tasks
from flaxnets.data import drawn
from flaxnets.tasks import classification
from flaxnets.training import Phase, TrainStep, optimizers
from flaxnets.training.checkpoints import Checkpoints
from flaxnets.training.step import STREAMS, _is_costly, stack

BATCH = jnp.ones((4, 7)), jnp.arange(4) % 3


def _step(**options):
    model = flaxnets.create("feedforward", variant="tiny", softmax=False)
    return model, TrainStep(
        model, Phase(classification.objective(), optimizers.adam(0.1)), **options
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
        grads = nnx.grad(lambda model: classification.objective()(model, BATCH, None)[0])(model)
        optimizer.update(model, grads)

    for _ in range(3):
        tutorial_step(model, optimizer)
    for name, value in bridge.state_dict(step.model(state)).items():
        np.testing.assert_allclose(value, bridge.state_dict(model)[name], rtol=1e-5, atol=1e-7)


def _labels(params):
    """As Flax' own guides label parameters: by their paths."""
    return nnx.map_state(lambda path, _: "train" if "linear2" in path else "freeze", params)


def _kernels(params):
    return nnx.map_state(lambda path, _: path[-1] == "kernel", params)


BY_PATH = {
    "labels": optax.multi_transform(
        {"train": optax.adam(0.1), "freeze": optax.set_to_zero()}, _labels
    ),
    "mask of decay": optax.adamw(0.1, weight_decay=0.5, mask=_kernels),
    "masked": optax.chain(optax.sgd(0.1), optax.masked(optax.scale(0.0), _kernels)),
}


@pytest.mark.parametrize("name", BY_PATH)
def test_paths(name):
    """A transformation that looks at paths does what it does in `nnx.Optimizer`."""
    model, _ = _step()
    before = bridge.state_dict(model)
    step = TrainStep(model, Phase(classification.objective(), BY_PATH[name]))
    state = step.state
    for _ in range(3):
        state, _ = step(state, BATCH)
    after = bridge.state_dict(step.model(state))

    optimizer = nnx.Optimizer(model, BY_PATH[name], wrt=nnx.Param)
    for _ in range(3):
        grads = nnx.grad(lambda model: classification.objective()(model, BATCH, None)[0])(model)
        optimizer.update(model, grads)
    for key, value in bridge.state_dict(model).items():
        np.testing.assert_allclose(after[key], value, rtol=1e-5, atol=1e-7)

    moved = {key for key, value in before.items() if (after[key] != value).any()}
    assert (
        moved
        == {
            "labels": {"linear2.weight", "linear2.bias"},
            "mask of decay": before.keys(),
            "masked": {"linear1.bias", "linear2.bias"},
        }[name]
    )


def _objective(returned):
    return lambda model, batch, rngs: returned(model(batch[0]).mean())


MODEL = flaxnets.create("feedforward", variant="tiny", softmax=False)
OBJECTIVE, SGD = classification.objective(), optax.sgd(0.1)


@pytest.mark.parametrize(
    ("phases", "options", "message"),
    [
        ([], {}, "a step without a phase"),
        ([OBJECTIVE], {}, "a function is no Phase"),
        ([Phase(OBJECTIVE, nnx.Optimizer(MODEL, SGD, wrt=nnx.Param))], {}, "give .* its tx"),
        ([Phase(OBJECTIVE, SGD, "head")], {}, "no part 'head' .* has linear1, linear2"),
        ([Phase(_objective(lambda x: x), SGD)], {}, "return loss, metrics"),
        (
            [Phase(_objective(lambda x: (x, x, x)), SGD)],
            {},
            r"returned \(.*, .*, .*\); return loss, metrics",
        ),
        ([Phase(_objective(lambda x: (x[None], {})), SGD)], {}, r"the loss .* shape \(1,\)"),
        ([Phase(_objective(lambda x: (x, {"wide": x[None]})), SGD)], {}, "wide of an objective"),
        ([Phase(OBJECTIVE, SGD)], {"accumulate": 3}, "a batch of 4 is not cut into 3 equal"),
        ([Phase(OBJECTIVE, SGD)], {"mesh": jax.make_mesh((1,), ("x",))}, r"axes \('x',\); use"),
    ],
)
def test_wrong_use(phases, options, message):
    """One line says what is wrong and what would be right."""

    def use():
        step = TrainStep(MODEL, *phases, **options)
        step(step.state, BATCH)

    with pytest.raises((TypeError, ValueError), match=message) as caught:
        use()
    assert "\n" not in str(caught.value)


def test_state_is_donated_and_the_model_is_not():
    """A used state is gone; the model that the step was made of is whole."""
    model, step = _step()
    before = bridge.state_dict(model)
    state, _ = step(step.state, BATCH)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(step.state))
    for call, given in (
        (step, BATCH),
        (step.many, stack([BATCH])),
        (step.unrolled, stack([BATCH])),
    ):
        with pytest.raises(ValueError, match="deleted: a step took it; go on with what"):
            call(step.state, given)
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
        return classification.objective()(model, batch, rngs)[0], {"drawn": rngs.uniform(())}

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


def _wide(name, variant="tiny", optimizer=None, **options):
    """A step in float64 and a batch of eight for it."""
    spec = flaxnets.spec(name, variant)
    model = flaxnets.build(spec)
    graph, state = nnx.split(model)
    real = lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x  # noqa: E731
    phases = [
        Phase(objective, optimizer or optimizers.sgd(0.1), part)
        for part, objective in tasks.of(spec).objectives(spec).items()
    ]
    batch = jax.tree.map(lambda x: real(jnp.asarray(x)), drawn.batch(spec, 8, 0))
    return TrainStep(nnx.merge(graph, jax.tree.map(real, state)), *phases, **options), batch


class Dropping(nnx.Module):
    """Holds its own random numbers, as the layers of Flax' guides do."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(7, 3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.linear(self.dropout(x))


def _first_losses(seed, count=2, **options):
    phase = Phase(classification.objective(), optax.sgd(0.0))
    step = TrainStep(Dropping(nnx.Rngs(0)), phase, seed=seed, **options)
    state, losses = step.state, []
    for _ in range(count):
        state, metrics = step(state, BATCH)
        losses.append(float(metrics["loss"]))
    return losses


def test_streams_of_the_model_follow_seed_and_step():
    """What a model draws by itself is drawn from the step's seed, anew at every step and part."""
    first, second = _first_losses(0)
    assert first != second
    assert [first, second] == _first_losses(0)
    assert {first, second}.isdisjoint(_first_losses(1))
    halves = _first_losses(0, accumulate=2)
    assert {first, second}.isdisjoint(halves)

    model = nnx.view(Dropping(nnx.Rngs(0)), deterministic=False)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), STREAMS)
    streams = nnx.state(model, nnx.RngKey)
    keys = [jax.random.fold_in(key, number) for number in range(len(jax.tree.leaves(streams)))]
    nnx.update(model, jax.tree.unflatten(jax.tree.structure(streams), keys))
    nnx.update(model, jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.RngCount)))
    loss, _ = classification.objective()(model, BATCH, None)
    np.testing.assert_allclose(loss, first, rtol=1e-6)


def test_streams_are_saved(tmp_path):
    """A checkpoint holds the streams of a model, and its run goes on as it was."""
    step = TrainStep(Dropping(nnx.Rngs(0)), Phase(classification.objective(), optax.sgd(0.1)))
    state, _ = step(step.state, BATCH)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        found = checkpoints.restore(state)
    (after, one), (again, other) = step(state, BATCH), step(found.arrays, BATCH)
    assert float(one["loss"]) == float(other["loss"])
    for left, right in zip(jax.tree.leaves(after), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(left, right)
    trained = step.model(after)
    assert trained.dropout.rngs.key[...].dtype == jax.random.key(0).dtype
    put = step.with_model(after, trained, 2)
    assert [x.dtype for x in put.rest] == [x.dtype for x in after.rest]
    (_, one), (_, other) = step(put, BATCH), step(again, BATCH)
    assert float(one["loss"]) == float(other["loss"])


def test_accumulation():
    """Gradients averaged over four parts are those of the whole batch."""
    with jax.enable_x64():
        whole, batch = _wide("lenet")
        parts, _ = _wide("lenet", accumulate=4)
        (one, metrics, _), (other, figures, _) = (
            jax.jit(step.watched)(step.state, batch) for step in (whole, parts)
        )
    np.testing.assert_allclose(figures["loss"], metrics["loss"], rtol=1e-12)
    for a, b in zip(one.params, other.params, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_average_of_weights():
    """The average is what torch.optim.swa_utils makes of the same weights."""
    _, step = _step(ema=0.8)
    linear = torch.nn.Linear(1, 1)
    update = swa_utils.get_ema_multi_avg_fn(0.8)
    average = swa_utils.AveragedModel(linear, multi_avg_fn=update)
    state = step.state
    for _ in range(4):
        state, _ = step(state, BATCH)
        with torch.no_grad():
            linear.weight.fill_(float(state.params[2][0]))
        average.update_parameters(linear)
    np.testing.assert_allclose(state.averages[2][0], average.module.weight.item(), rtol=1e-6)
    assert float(state.averages[2][0]) != float(state.params[2][0])


def test_rematerialisation():
    """The same gradients, with less than half of the bytes kept for the backward pass."""
    with jax.enable_x64():
        kept, batch = _wide("transformer_encoder")
        again, _ = _wide("transformer_encoder", remat=True)
        one, other = (jax.jit(step.watched)(step.state, batch)[2] for step in (kept, again))
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)

    def bytes_kept(step):
        def residuals(params):
            def loss(params):
                return kept._phases[0].objective(step._merge(params, ()), batch, nnx.Rngs(0))[0]

            again = jax.checkpoint(loss, policy=_is_costly) if step._remat else loss
            return jax.vjp(again, params)[1]

        found = jax.tree.leaves(jax.eval_shape(residuals, list(step.state.params)))
        return sum(x.size * x.dtype.itemsize for x in found)

    with jax.enable_x64():
        assert bytes_kept(again) < bytes_kept(kept) / 2


def test_bfloat16():
    """Products are of bfloat16; weights, moments, statistics and losses are of float32."""
    spec = flaxnets.spec("vae", "tiny")
    (objective,) = tasks.of(spec).objectives(spec).values()
    batch = jax.tree.map(jnp.asarray, drawn.batch(spec, 8, 0))
    narrow, exact = (
        TrainStep(flaxnets.build(spec), Phase(objective, optimizers.adam()), precision=precision)
        for precision in ("bfloat16", "float32")
    )
    text = str(jax.make_jaxpr(narrow.pure)(narrow.state, batch))
    products = [line for line in text.splitlines() if "dot_general[" in line or "conv_gen" in line]
    assert products
    assert all("bf16[" in line for line in products)
    state, metrics = narrow(narrow.state, batch)
    _, truth = exact(exact.state, batch)
    assert {x.dtype for x in (*state.params, *state.rest, *state.moments)} <= {
        jnp.dtype("float32"),
        jnp.dtype("int32"),
    }
    assert metrics["loss"].dtype == jnp.float32
    assert metrics["loss"] != truth["loss"]
    np.testing.assert_allclose(metrics["loss"], truth["loss"], rtol=0.02)
