"""Normalisation layers against torch.nn's: both modes, statistics, weights, dtypes and errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flaxnets import bridge, layers, parity
from flaxnets.bridge.convert import as_numpy, in_dtype
from flaxnets.layers import normalization
from flaxnets.specs import Input
from flaxnets.training import Phase, TrainStep, optimizers
from torch_ref.arrays import tensor

AXES = {1: "blc", 2: "bhwc", 3: "bdhwc"}
SIZES = {1: (4, 7, 3), 2: (4, 6, 5, 3), 3: (2, 4, 6, 5, 3)}
CHECKS = ["forward", "forward_train", "gradients", "buffers", "round_trip", "initialisation"]
OPTIONS = [
    {"momentum": m, "affine": a, "track_running_stats": t}
    for m, a, t in itertools.product((0.1, 0.37, None), (True, False), (True, False))
] + [{"eps": 1e-2}, {"bias": False}, {"momentum": 0.0}, {"momentum": 1.0}]
FEW = [{}, {"momentum": None}, {"affine": True, "track_running_stats": True, "eps": 1e-3}]


def prove(flax, reference, shape, axes, checks=CHECKS):
    """The two layers are one function."""
    parity.check(
        flax, reference, [Input(name="x", shape=shape, axes=axes)], checks
    ).raise_if_failed()


@pytest.mark.parametrize(
    ("kind", "options"),
    [("BatchNorm2d", options) for options in OPTIONS]
    + [("InstanceNorm2d", options) for options in OPTIONS]
    + [(f"{k}Norm{d}d", options) for k in ("Batch", "Instance") for d in (1, 3) for options in FEW],
    ids=str,
)
def test_batch_and_instance(kind, options):
    """Outputs in both modes, gradients, three passes' statistics and all bits of the weights."""
    dims = int(kind[-2])
    prove(
        lambda seed: getattr(layers, kind)(3, **options, rngs=nnx.Rngs(seed)),
        lambda seed: getattr(torch.nn, kind)(3, **options),
        SIZES[dims],
        AXES[dims],
    )


def test_batch_of_vectors():
    """BatchNorm1d takes (b, c) too."""
    prove(lambda seed: layers.BatchNorm1d(3), lambda seed: torch.nn.BatchNorm1d(3), (5, 3), "bf")


@pytest.mark.parametrize("affine", [True, False])
def test_batch_derivatives(affine):
    """BatchNorm's own derivative is JAX's: forward, reverse, second, and that of its statistics."""

    def plain(x, weight, bias):
        mean, var = x.mean((0, 1)), x.var((0, 1))
        y = (x - mean[None, None]) / jnp.sqrt(var + 0.1)[None, None]
        return (y * weight[None, None] + bias[None, None] if affine else y), mean, var

    def own(x, weight, bias):
        return normalization._normalize_batch(0.1, x, *((weight, bias) if affine else (None, None)))

    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 9)
        shapes = ((4, 5, 3), (3,), (3,)) * 3
        drawn = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]
        primals, tangents, more = (tuple(drawn[i : i + 3]) for i in (0, 3, 6))
        results = []
        for function in (own, plain):
            y, dy = jax.jvp(function, primals, tangents)
            reverse = jax.vjp(function, *primals)[1](dy)
            slope = lambda *args: jax.vjp(function, *args)[1](dy)  # noqa: B023, E731
            results.append((y, dy, reverse, jax.vjp(slope, *primals)[1](more)))
        for ours, theirs in zip(*map(jax.tree.leaves, results), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("track", [True, False])
def test_instance_without_batch(dims, track):
    """InstanceNorm of one example without a batch axis, which the harness cannot permute."""
    kind, options = f"InstanceNorm{dims}d", {"affine": True, "track_running_stats": track}
    x = np.random.default_rng(0).standard_normal(SIZES[dims][1:])
    with jax.enable_x64(True):
        ours, theirs = getattr(layers, kind)(3, **options), getattr(torch.nn, kind)(3, **options)
        ours = in_dtype(ours, "float64")
        outputs = ours(jnp.asarray(x))
    truth = theirs.double()(torch.tensor(np.moveaxis(x, -1, 0)))
    np.testing.assert_allclose(
        np.moveaxis(np.asarray(outputs), -1, 0), truth.detach().numpy(), rtol=0, atol=1e-10
    )
    if track:
        np.testing.assert_allclose(ours.running_var, theirs.running_var.numpy(), rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"elementwise_affine": False}, {"bias": False}], ids=str)
@pytest.mark.parametrize(
    ("shape", "axes", "normalized"),
    [((4, 5), "bf", 5), ((2, 3, 5), "btf", (5,)), ((2, 3, 5), "btf", (3, 5)), ((5,), "f", 5)],
)
def test_layer_norm(shape, axes, normalized, options):
    """LayerNorm over the last axis and the last two, with and without weights."""
    prove(
        lambda seed: layers.LayerNorm(normalized, **options),
        lambda seed: torch.nn.LayerNorm(normalized, **options),
        shape,
        axes,
    )


def test_layer_norm_of_maps():
    """Without weights LayerNorm((h, w, c)) is torch's LayerNorm((c, h, w)); weights are refused."""
    options = {"elementwise_affine": False, "eps": 1e-3}
    ours, theirs = (
        layers.LayerNorm((6, 5, 3), **options),
        torch.nn.LayerNorm((3, 6, 5), **options),
    )
    prove(ours, theirs, SIZES[2], "bhwc", ["forward", "gradients"])
    with pytest.raises(bridge.BridgeError, match=r"weight has shape \(3, 6, 5\), not \(6, 5, 3\)"):
        bridge.load_state_dict(
            layers.LayerNorm((6, 5, 3)), torch.nn.LayerNorm((3, 6, 5)).state_dict()
        )


@pytest.mark.parametrize("options", [{}, {"eps": 1e-2}, {"elementwise_affine": False}], ids=str)
@pytest.mark.parametrize("normalized", [5, (3, 5)])
def test_rms_norm(normalized, options):
    """RMSNorm, with torch's default epsilon too."""
    prove(
        lambda seed: layers.RMSNorm(normalized, **options),
        lambda seed: torch.nn.RMSNorm(normalized, **options),
        (2, 3, 5),
        "btf",
    )


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_rms_norm_epsilon(dtype):
    """The default epsilon is torch's in every dtype; the inputs are so small that it decides."""
    with jax.enable_x64(True):
        x = 1e-4 * jnp.arange(1, 11).reshape(2, 5).astype(dtype)
        ours = layers.RMSNorm(5, elementwise_affine=False)(x)
    theirs = torch.nn.RMSNorm(5, elementwise_affine=False)(tensor(np.asarray(x)))
    assert ours.dtype == dtype
    np.testing.assert_allclose(
        np.asarray(ours, np.float64),
        as_numpy(theirs).astype(np.float64),
        rtol=2 * float(jnp.finfo(dtype).eps),
    )


@pytest.mark.parametrize(
    "options", [{}, {"affine": False}, {"bias": False}, {"eps": 1e-2}], ids=str
)
@pytest.mark.parametrize(
    ("shape", "axes", "groups"),
    [((3, 6), "bf", 1), ((3, 6), "bf", 2)]
    + [((3, 5, 4, 6), "bhwc", groups) for groups in (1, 2, 6)],
)
def test_group_norm(shape, axes, groups, options):
    """GroupNorm of vectors and maps, from one group to one a channel."""
    prove(
        lambda seed: layers.GroupNorm(groups, 6, **options, rngs=nnx.Rngs(seed)),
        lambda seed: torch.nn.GroupNorm(groups, 6, **options),
        shape,
        axes,
    )


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_local_response(dims, size):
    """LocalResponseNorm with even and odd windows, and one wider than the channels."""
    options = {"alpha": 0.3, "beta": 0.6, "k": 1.7}
    prove(
        layers.LocalResponseNorm(size, **options),
        torch.nn.LocalResponseNorm(size, **options),
        (*SIZES[dims][:-1], 5),
        AXES[dims],
        ["forward", "gradients"],
    )


def test_far_from_zero():
    """In float32, a mean of 1000 costs its own rounding; E[x^2] - E[x]^2 would cost 1e-1."""
    x = 1000 + np.random.default_rng(0).standard_normal((4, 6, 5, 4)).astype(np.float32)
    ulps = 16 * float(np.spacing(np.float32(1000)))
    for ours, theirs in (
        (layers.BatchNorm2d(4), torch.nn.BatchNorm2d(4)),
        (layers.InstanceNorm2d(4), torch.nn.InstanceNorm2d(4)),
        (layers.GroupNorm(2, 4), torch.nn.GroupNorm(2, 4)),
    ):
        inputs = torch.tensor(np.moveaxis(x, -1, 1))
        truth = theirs.double()(inputs.double()).detach().numpy()
        mine = np.moveaxis(np.asarray(ours(jnp.asarray(x))), -1, 1)
        assert np.abs(mine - truth).max() <= ulps


def test_half_precision():
    """A bfloat16 model gives bfloat16 and keeps its statistics so, near to torch's."""
    x = 3 + np.random.default_rng(0).standard_normal((4, 6, 5, 3)).astype(np.float32)
    ours = layers.BatchNorm2d(3)
    nnx.update(ours, jax.tree.map(lambda v: v.astype(_half(v)), nnx.state(ours)))
    theirs = torch.nn.BatchNorm2d(3).bfloat16()
    mine = ours(jnp.asarray(x, jnp.bfloat16))
    truth = theirs(torch.tensor(np.moveaxis(x, -1, 1)).bfloat16())
    assert mine.dtype == ours.running_var.dtype == jnp.bfloat16
    gap = np.moveaxis(np.asarray(mine, np.float32), -1, 1) - truth.detach().float().numpy()
    assert np.abs(gap).max() <= 2**-6
    state = bridge.state_dict(ours)
    np.testing.assert_allclose(
        state["running_mean"].astype(np.float32), theirs.running_mean.float().numpy(), rtol=2**-7
    )


def _half(value):
    return jnp.bfloat16 if jnp.issubdtype(value.dtype, jnp.floating) else value.dtype


class Net(nnx.Module):
    """A convolution, batch normalisation and a dense layer."""

    def __init__(self, momentum, rngs):
        self.conv = layers.Conv2d(3, 4, 3, rngs=rngs)
        self.bn = layers.BatchNorm2d(4, momentum=momentum, rngs=rngs)
        self.flatten = layers.Flatten()
        self.fc = layers.Linear(48, 2, rngs=rngs)

    def __call__(self, x):
        return self.fc(self.flatten(jnp.tanh(self.bn(self.conv(x)))))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("many", [False, True], ids=["single", "scanned"])
def test_train_step(momentum, many):
    """Three steps of `TrainStep` leave torch's weights, statistics and count behind."""
    torch.manual_seed(0)
    theirs = torch.nn.Sequential()
    theirs.conv, theirs.bn = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4, momentum=momentum)
    theirs.flatten, theirs.fc = torch.nn.Flatten(), torch.nn.Linear(48, 2)
    theirs.double()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    rng = np.random.default_rng(0)
    batches = rng.standard_normal((3, 5, 6, 5, 3))

    def objective(model, batch, rngs):
        return jnp.mean(jnp.square(model(batch) - 1)), {}

    with jax.enable_x64(True):
        ours = Net(momentum, nnx.Rngs(0))
        nnx.update(ours, jax.tree.map(_double, nnx.state(ours)))
        bridge.load_state_dict(ours, theirs.state_dict())
        step = TrainStep(ours, Phase(objective, optimizers.sgd(0.1)))
        state = step.state
        if many:
            state, _ = step.many(state, jnp.asarray(batches))
        else:
            for batch in batches:
                state, _ = step(state, jnp.asarray(batch))
        mine = bridge.state_dict(step.model(state))
    for batch in batches:
        x = torch.tensor(np.moveaxis(batch, -1, 1))
        x = torch.tanh(theirs.bn(theirs.conv(x)))
        loss = (theirs.fc(theirs.flatten(x)) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    truth = {name: value.numpy() for name, value in theirs.state_dict().items()}
    assert mine.keys() == truth.keys()
    assert mine["bn.num_batches_tracked"] == truth["bn.num_batches_tracked"] == 3
    for name in truth:
        assert mine[name].dtype == truth[name].dtype
        np.testing.assert_allclose(mine[name], truth[name], rtol=0, atol=1e-12, err_msg=name)


def _double(value):
    return value.astype(jnp.float64) if jnp.issubdtype(value.dtype, jnp.floating) else value


@pytest.mark.parametrize("graph", [True, False])
def test_graph_modes(graph):
    """The layers split, merge and view with NNX's graph mode on and off."""
    layer = layers.BatchNorm2d(3)
    x = jnp.ones((2, 4, 5, 3))
    definition, state = nnx.split(nnx.view(layer, use_running_average=True), graph=graph)
    np.testing.assert_allclose(nnx.merge(definition, state)(x), x, rtol=1e-4)
    assert layer.use_running_average is False
    layer(x)
    assert int(layer.num_batches_tracked[...]) == 1


class Plain(nnx.Module):
    """Flax's own layers under torch's attribute names."""

    def __init__(self, rngs):
        # nnx.Embed computes in the dtype that it was made with.
        self.embed = nnx.Embed(7, 6, dtype=jnp.float64, rngs=rngs)
        self.layer = nnx.LayerNorm(6, epsilon=1e-5, use_fast_variance=False, rngs=rngs)
        self.group = nnx.GroupNorm(6, 2, epsilon=1e-5, use_fast_variance=False, rngs=rngs)
        self.rms = nnx.RMSNorm(6, epsilon=1e-5, rngs=rngs)
        self.batch = nnx.BatchNorm(6, epsilon=1e-5, rngs=rngs)

    def __call__(self, x):
        return self.batch(self.rms(self.group(self.layer(self.embed(x)))))


class PlainTorch(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(7, 6)
        self.layer = torch.nn.LayerNorm(6)
        self.group = torch.nn.GroupNorm(2, 6)
        self.rms = torch.nn.RMSNorm(6, eps=1e-5)
        self.batch = torch.nn.BatchNorm1d(6)

    def forward(self, x):
        return self.batch(self.rms(self.group(self.layer(self.embed(x)))))


def test_plain_layers():
    """Models of Flax's own layers, which promote, cross the bridge and are torch's function."""
    inputs = [Input(name="x", shape=(5,), axes="b", high=7)]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        report = parity.check(
            Plain(nnx.Rngs(0)), PlainTorch(), inputs, ["forward", "forward_train", "gradients"]
        )
        report.raise_if_failed()
        # Flax stores the biased variance, and has no count: its statistics are not torch's.
        assert not parity.check(Plain(nnx.Rngs(0)), PlainTorch(), inputs, ["buffers"]).passed


def test_plain_batch_norm_count():
    """A count that Flax has no place for must be there on the way in and is 0 on the way out."""
    ours, state = nnx.BatchNorm(6, rngs=nnx.Rngs(0)), torch.nn.BatchNorm1d(6).state_dict()
    state["num_batches_tracked"] += 5
    bridge.load_state_dict(ours, state)
    back = bridge.state_dict(ours)
    assert back["num_batches_tracked"] == 0
    assert back["num_batches_tracked"].dtype == np.int64
    torch.nn.BatchNorm1d(6).load_state_dict({k: torch.tensor(v) for k, v in back.items()})
    del state["num_batches_tracked"]
    with pytest.raises(bridge.BridgeError, match="missing num_batches_tracked"):
        bridge.load_state_dict(ours, state)
    state["num_batches_tracked"] = torch.zeros((), dtype=torch.int32)
    with pytest.raises(bridge.BridgeError, match="num_batches_tracked has dtype int32, not int64"):
        bridge.load_state_dict(ours, state)


def test_count(tmp_path):
    """`num_batches_tracked` is int32 in Flax, int64 in torch and files, and crosses exactly."""
    ours, theirs = layers.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    state = theirs.state_dict()
    state["num_batches_tracked"].fill_(2**31 - 1)
    bridge.load_state_dict(ours, state)
    assert ours.num_batches_tracked[...].dtype == jnp.int32
    bridge.save(ours, tmp_path / "m.safetensors")
    back = bridge.read(tmp_path / "m.safetensors")["num_batches_tracked"]
    assert back.dtype == np.int64
    assert back.shape == ()
    assert back == 2**31 - 1
    bridge.load(ours, tmp_path / "m.safetensors")
    state["num_batches_tracked"].fill_(2**31)
    with pytest.raises(bridge.BridgeError, match="holds values that int32 does not"):
        bridge.load_state_dict(ours, state)
    assert int(ours.num_batches_tracked[...]) == 2**31 - 1


@pytest.mark.parametrize(
    ("create", "shape", "message"),
    [
        (lambda: layers.BatchNorm2d(3), (1, 1, 1, 3), "has 1 value a channel"),
        (lambda: layers.BatchNorm1d(3), (1, 3), "has 1 value a channel"),
        (lambda: layers.BatchNorm2d(3), (2, 4, 3), "has 3 axes; use 4"),
        (lambda: layers.BatchNorm1d(3), (2, 4, 4, 3), "has 4 axes; use 2 or 3"),
        (lambda: layers.BatchNorm2d(3), (2, 4, 4, 5), "has 5 channels, not 3"),
        (lambda: layers.InstanceNorm2d(3), (2, 1, 1, 3), "has 1 pixel"),
        (lambda: layers.InstanceNorm2d(3), (2, 3), "has 2 axes; use 3 or 4"),
        (lambda: layers.LayerNorm((4, 3)), (2, 3, 4), r"does not end in normalized_shape \(4, 3\)"),
        (lambda: layers.RMSNorm(3), (2, 4), r"does not end in normalized_shape \(3,\)"),
        (lambda: layers.GroupNorm(2, 4), (2, 6), r"\(2, 6\) is not \(b, ..., 4\)"),
        (lambda: layers.LocalResponseNorm(2), (2, 3), "has 2 axes; use 3 or more"),
        (lambda: layers.BatchNorm2d(0), None, "num_features 0 is too small"),
        (lambda: layers.BatchNorm2d(3, momentum=1.5), None, "momentum 1.5 is out of range"),
        (lambda: layers.LayerNorm(()), None, r"normalized_shape \(\) is empty"),
        (lambda: layers.GroupNorm(4, 6), None, "num_channels 6 is not a multiple of 4 groups"),
        (lambda: layers.LocalResponseNorm(0), None, "size 0 is too small"),
    ],
)
def test_wrong(create, shape, message):
    """Each wrong option and input is named with its value, in one line."""
    with pytest.raises(ValueError, match=message) as error:
        create()(jnp.ones(shape))
    assert "\n" not in str(error.value)


def test_torch_raises_too():
    """Where one value a channel is refused, torch refuses it as well."""
    for theirs, shape in (
        (torch.nn.BatchNorm2d(3), (1, 3, 1, 1)),
        (torch.nn.InstanceNorm2d(3), (2, 3, 1, 1)),
    ):
        with pytest.raises(ValueError, match="Expected more than 1"):
            theirs(torch.ones(shape))


def test_zero_gradient_in_training():
    """A bias in front of BatchNorm, whose gradient is rounding noise, fails no check."""

    def objective(model, batch, rngs):
        inputs, weights = batch
        return 1e5 * jnp.mean(weights * model(inputs) ** 2), {}  # so large that the noise shows

    def torch_objective(model, batch):
        inputs, weights = batch
        return 1e5 * torch.mean(weights.movedim(-1, 1) * model(inputs) ** 2), {}

    rng = np.random.default_rng(0)
    image = Input(name="x", shape=(4, 6, 5, 3), axes="bhwc")
    batch = rng.standard_normal((4, 6, 5, 3)), rng.random((4, 4, 3, 4))
    parity.check(
        nnx.Sequential(layers.Conv2d(3, 4, 3, rngs=nnx.Rngs(0)), layers.BatchNorm2d(4)),
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)),
        [image],
        ["compiled", "lowering", "float32", "trajectory"],
        task=parity.Task({"": objective}, {"": torch_objective}, [image], [batch]),
    ).raise_if_failed()
