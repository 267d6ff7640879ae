"""Torch modules as NNX modules: equal to the modules themselves, in all that JAX does to them."""

import copy
import gc
import pickle
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from jax.test_util import check_grads

import flaxnets
from flaxnets import bridge, swap, training
from flaxnets.parity.pair import _draw_inputs
from flaxnets.tasks import classification
from flaxnets.training import optimizers
from torch_ref.arrays import channels_first, tensor, tensors

BOUND = 1e-10


def _net(dropout=0.5):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        *(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(inplace=True)),
        *(torch.nn.Flatten(), torch.nn.Dropout(dropout), torch.nn.Linear(4 * 16, 3)),
    )


@pytest.fixture
def images():
    """Channels first."""
    return jax.random.normal(jax.random.key(0), (5, 1, 6, 6))


LABELS = np.array([0, 1, 2, 0, 1])


def _close(ours, theirs, what):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, what
    assert np.isfinite(theirs).all(), what
    assert np.abs(np.asarray(ours) - theirs).max() <= BOUND * max(np.abs(theirs).max(), 1e-3), what


@pytest.mark.parametrize("name", flaxnets.names())
def test_every_network(name):
    """Outputs and gradients of parameters and inputs are torch's own, through jit and grad."""
    spec = flaxnets.spec(name, variant="tiny")
    module = flaxnets.build(spec, "torch", seed=1).double().eval()
    given, values = _draw_inputs(np.random.Generator(np.random.Philox(0)), spec.inputs(3))
    inputs = [channels_first(tensor(v), one.axes) for one, v in zip(given, values, strict=True)]
    inputs = [x.double().requires_grad_() if x.is_floating_point() else x for x in inputs]
    outputs = jax.tree.leaves(module(*inputs))
    sum((torch.sin(x) * x).sum() for x in outputs).backward()
    with jax.enable_x64(True):
        arrays = [jnp.asarray(x.detach().numpy()) for x in inputs]
        real = [i for i, x in enumerate(inputs) if x.requires_grad]
        graph, params, rest = nnx.split(swap.as_flax(module), nnx.Param, ...)

        @jax.jit
        def both(params, some):
            def loss(params, some):
                whole = list(arrays)
                for index, array in zip(real, some, strict=True):
                    whole[index] = array
                found = jax.tree.leaves(nnx.merge(graph, params, rest, copy=True)(*whole))
                return sum((jnp.sin(x) * x).sum() for x in found), found

            return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, some)

        (of_params, of_inputs), found = both(params, [arrays[index] for index in real])
        for one, other in zip(found, outputs, strict=True):
            _close(one, other, "outputs")
        for index, gradient in zip(real, of_inputs, strict=True):
            _close(gradient, inputs[index].grad, index)
        gradients = bridge.state_dict(nnx.merge(graph, of_params, rest))
        assert list(bridge.state_dict(swap.as_flax(module))) == list(module.state_dict())
        for key, value in module.named_parameters():
            wanted = torch.zeros_like(value) if value.grad is None else value.grad
            _close(gradients[key], wanted, key)


def test_names(images):
    """Names, layouts and values are torch's, and the bridge carries them both ways."""
    module = _net()
    network = swap.as_flax(module)
    state = bridge.state_dict(network)
    assert list(state) == list(module.state_dict())
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(state[name], value)
    other = swap.as_flax(_net())
    bridge.load_state_dict(other, {k: np.asarray(v + 1) for k, v in state.items()})
    np.testing.assert_array_equal(getattr(other, "5").bias[...], state["5.bias"] + 1)
    np.testing.assert_array_equal(bridge.state_dict(network)["5.bias"], state["5.bias"])


def test_training(images):
    """Twenty steps of optax end with torch's own weights and statistics after as many."""
    module = _net(dropout=0.0)
    network = swap.as_flax(module)
    optimizer = nnx.Optimizer(network, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)

    @nnx.jit
    def step(network, optimizer, x, y):
        def loss(network):
            return optax.softmax_cross_entropy_with_integer_labels(network(x), y).mean()

        value, gradients = nnx.value_and_grad(loss)(network)
        optimizer.update(network, gradients)
        return value

    theirs = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.tensor(np.array(images)), torch.tensor(LABELS)
    for _ in range(20):
        theirs.zero_grad()
        wanted = torch.nn.functional.cross_entropy(module(x), y)
        wanted.backward()
        theirs.step()
        np.testing.assert_allclose(
            step(network, optimizer, images, LABELS), wanted.item(), rtol=1e-4, atol=1e-6
        )
    for name, value in bridge.state_dict(network).items():
        np.testing.assert_allclose(value, module.state_dict()[name], rtol=1e-3, atol=1e-5)


def test_in_our_own_step(images):
    """The library's training step takes it, dropout included, and the loss falls."""
    network = swap.as_flax(_net())
    step = training.TrainStep(
        network, training.Phase(classification.objective(), optimizers.adam(lr=1e-2))
    )
    losses = []
    batch = images, LABELS
    state = training.fit(step, [batch] * 30, 30, lambda _, told: losses.append(told["loss"]))
    assert losses[-1] < losses[0] / 3
    trained = step.model(state)
    assert trained.deterministic
    assert getattr(trained, "1").num_batches_tracked[...] == 30


def test_modes(images):
    """Training draws and counts, evaluation does neither; each part of the view counts."""
    network = swap.as_flax(_net())
    with pytest.raises(swap.SwapError, match="Sequential draws random numbers; call it with rngs"):
        network(images)
    found = [network(images, rngs=nnx.Rngs(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    norm = getattr(network, "1")
    assert norm.num_batches_tracked[...] == 3
    evaluated = nnx.view(network, deterministic=True, use_running_average=True)
    assert np.array_equal(evaluated(images), evaluated(images))
    assert norm.num_batches_tracked[...] == 3
    resting = nnx.view(network, deterministic=False, use_running_average=True)
    before = norm.running_mean[...]
    found = [resting(images, rngs=nnx.Rngs(seed)) for seed in (0, 1)]
    assert not np.array_equal(*found)
    assert np.array_equal(norm.running_mean[...], before)
    assert norm.num_batches_tracked[...] == 3
    wanted = _net().eval()
    wanted.load_state_dict(tensors(bridge.state_dict(network)))
    np.testing.assert_allclose(
        evaluated(images), wanted(torch.tensor(np.array(images))).detach(), rtol=1e-5, atol=1e-6
    )


def test_module_stays(images):
    """The torch module keeps its weights, statistics and mode."""
    module = _net().eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    network = nnx.view(swap.as_flax(module), deterministic=False, use_running_average=False)
    network(images, rngs=nnx.Rngs(0))
    assert not module.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_dropout_of_the_gradient(images):
    """The gradient computes the module again with the same numbers: finite differences agree."""
    with jax.enable_x64(True):
        graph, params, rest = nnx.split(
            swap.as_flax(_net().double()),
            nnx.Param,
            ...,
        )

        def run(params, x):
            return nnx.merge(graph, params, rest, copy=True)(x, rngs=nnx.Rngs(7))

        check_grads(run, (params, images.astype(jnp.float64)), order=1, modes=["rev"])


def test_scan(images):
    """In a loop on the device: the steps of a loop in Python."""
    network = swap.as_flax(_net(dropout=0.0).eval())
    graph, state = nnx.split(network)

    def step(x, _):
        return x + nnx.merge(graph, state)(x).mean(), None

    looped, _ = jax.jit(lambda x: jax.lax.scan(step, x, None, length=3))(images)
    by_hand = images
    for _ in range(3):
        by_hand, _ = step(by_hand, None)
    np.testing.assert_allclose(looped, by_hand, rtol=1e-5, atol=1e-6)


def test_nested(images):
    """A module that hides a module of `as_torch` is refused: JAX would wait for itself."""
    inner = swap.as_torch(nnx.Linear(6, 6, rngs=nnx.Rngs(0)))
    network = swap.as_flax(torch.nn.Sequential(inner, torch.nn.Tanh()))
    with pytest.raises(swap.SwapError, match="JAX cannot compute inside"):
        network(jnp.ones((2, 6)))
    with pytest.raises(jax.errors.JaxRuntimeError, match="SwapError: JAX cannot compute inside"):
        jax.block_until_ready(jax.jit(network)(jnp.ones((2, 6))))


def _value_and_gradient(network, images):
    """Of a loss that dropout and statistics are in."""

    def loss(network):
        return jnp.sin(network(images, rngs=nnx.Rngs(3))).sum()

    value, gradient = nnx.value_and_grad(loss)(network)
    return [value, *jax.tree.leaves(gradient)]


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))]
)
def test_copies(images, copied):
    """Copied and pickled modules have weights and statistics of their own, and compute the same."""
    module = _net()
    getattr(module, "0").weight.requires_grad_(False)
    network = swap.as_flax(module)
    network(images, rngs=nnx.Rngs(0))  # which moves statistics, and compiles
    state = bridge.state_dict(network)
    other = copied(network)
    for name, value in bridge.state_dict(other).items():
        np.testing.assert_array_equal(value, state[name])
    both = [_value_and_gradient(one, images) for one in (network, other)]
    for one, wanted in zip(*both, strict=True):
        np.testing.assert_array_equal(one, wanted)
    state = bridge.state_dict(network)
    bridge.load_state_dict(other, {name: np.asarray(value + 1) for name, value in state.items()})
    for name, value in bridge.state_dict(network).items():
        np.testing.assert_array_equal(value, state[name])


def _memory():
    """What this process holds, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def test_let_go(images):
    """A new module in every iteration, outside of `jit`: none is kept, nor any memory."""
    gone = []

    def iteration():
        network = swap.as_flax(_net())
        _value_and_gradient(network, images)
        gone.append(weakref.ref(network))
        gone.append(weakref.ref(network._template))

    for _ in range(10):
        iteration()
    gc.collect()
    before = _memory()
    for _ in range(30):
        iteration()
    gc.collect()
    assert not any(reference() for reference in gone)
    assert (_memory() - before) / 30 < 0.1  # MiB


def test_no_values():
    """A module on the meta device is named."""
    with pytest.raises(swap.SwapError, match="weight is meta and has no values; give the module"):
        swap.as_flax(torch.nn.Linear(2, 2, device="meta"))
