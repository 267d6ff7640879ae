"""NNX models as torch modules: equal to their torch twins, under everything torch users do."""

import copy
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.utils.checkpoint import checkpoint

import flaxnets
from flaxnets import bridge, layers, swap
from flaxnets.parity.pair import _draw_inputs
from torch_ref.arrays import channels_first, tensor, tensors

BOUND = 1e-10


class Net(nnx.Module):
    """A user's own network with all that differs in training."""

    def __init__(self, *, rngs: nnx.Rngs, dropout: float = 0.5) -> None:
        self.conv = layers.Conv2d(3, 4, 3, rngs=rngs)
        self.bn = layers.BatchNorm2d(4)
        self.dropout = layers.Dropout(dropout)
        self.flatten = layers.Flatten()
        self.fc = layers.Linear(4 * 16, 5, rngs=rngs)

    def __call__(self, x, *, rngs: nnx.Rngs | None = None):
        x = self.dropout(jax.nn.relu(self.bn(self.conv(x))), rngs=rngs)
        return self.fc(self.flatten(x))


def _twin(dropout=0.5):
    return torch.nn.Sequential(
        *(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()),
        *(torch.nn.Dropout(dropout), torch.nn.Flatten(), torch.nn.Linear(4 * 16, 5)),
    )


@pytest.fixture
def net():
    """The network as torch sees it; no memory may be copied."""
    return swap.as_torch(Net(rngs=nnx.Rngs(0)), copy="never")


@pytest.fixture
def images():
    """Channels first."""
    return torch.randn(6, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def _both(name):
    """A network in JAX, as torch sees it, its torch twin with the same weights, and inputs."""
    spec = flaxnets.spec(name, variant="tiny")
    flax = flaxnets.build(spec, seed=1)
    twin = flaxnets.build(spec, "torch")
    twin.load_state_dict(tensors(bridge.state_dict(flax)))
    given, values = _draw_inputs(np.random.Generator(np.random.Philox(0)), spec.inputs(3))
    inputs = [channels_first(tensor(v), one.axes) for one, v in zip(given, values, strict=True)]
    inputs = [x.double() if x.is_floating_point() else x.int() for x in inputs]
    axes = [one.axes for one in given]
    module = swap.as_torch(flax, inputs=axes if "blc" in axes else None, copy="never")
    return module.double().eval(), twin.double().eval(), inputs


def _close(ours, theirs, what):
    assert ours.shape == theirs.shape, what
    assert ours.dtype == theirs.dtype, what
    assert torch.isfinite(theirs).all(), what
    assert (ours - theirs).abs().max() <= BOUND * theirs.abs().max().clamp(min=1e-3), what


@pytest.mark.parametrize("name", flaxnets.names())
def test_twin(name):
    """Outputs, gradients of all parameters and inputs, and names are the torch twin's."""
    ours, theirs, inputs = _both(name)
    assert {k: (v.shape, v.dtype) for k, v in ours.state_dict().items()} == {
        k: (v.shape, v.dtype) for k, v in theirs.state_dict().items()
    }
    assert [k for k, _ in ours.named_parameters()] == [k for k, _ in theirs.named_parameters()]
    found = []
    for module in (ours, theirs):
        given = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
        outputs = jax.tree.leaves(module(*given))
        sum((torch.sin(x) * x).sum() for x in outputs).backward()
        real = [x for x in given if x.requires_grad]
        found.append([*outputs, *(x.grad for x in (*real, *module.parameters()))])
    for index, pair in enumerate(zip(*found, strict=True)):
        _close(*pair, (name, index))


def test_training():
    """Statistics, moments and weights after three steps of Adam are the torch twin's."""
    ours, theirs, (noise,) = _both("gan")
    for module in (ours.train(), theirs.train()):
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            module(noise)[1].log().mean().backward()
            optimizer.step()
    for name, value in theirs.state_dict().items():
        _close(ours.state_dict()[name].double(), value.double(), name)


@pytest.mark.parametrize(
    "name", ["mlp", "lenet", "vae", "lstm_tagger", "rnn", "transformer", "gan"]
)
def test_gradcheck(name):
    """Gradients of every parameter equal finite differences, for one model of each family."""
    module, _, inputs = _both(name)
    names = [name for name, _ in module.named_parameters()]

    def outputs(*params):
        given = dict(zip(names, params, strict=True))
        found = torch.func.functional_call(module, given, tuple(inputs))
        return tuple(jax.tree.leaves(found))

    assert torch.autograd.gradcheck(outputs, tuple(module.parameters()), fast_mode=True)


@pytest.mark.parametrize("name", ["feedforward", "lstm_tagger", "vae"])
def test_double_backward(name):
    """Second derivatives equal finite differences, custom gradients of layers included."""
    module, _, inputs = _both(name)
    names = [name for name, _ in module.named_parameters()]

    def outputs(*params):
        given = dict(zip(names, params, strict=True))
        return jax.tree.leaves(torch.func.functional_call(module, given, tuple(inputs)))[0]

    assert torch.autograd.gradgradcheck(outputs, tuple(module.parameters()), fast_mode=True)


def test_memory_is_shared(net, images):
    """What JAX computes with is torch's memory, also after an optimizer has written to it."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(images).square().mean().backward()
    before = net(images)
    optimizer.step()
    after = net(images)
    assert not torch.equal(before, after)
    (call,) = net._calls.values()
    for (_, array), value in zip(call._lasting, net.parameters(), strict=True):
        assert array.unsafe_buffer_pointer() == value.data_ptr()


def test_parameter_replaced(net, images):
    """A parameter that is put in another's place is computed with, and so is other memory."""
    net.eval()
    net(images)
    net.fc.bias = torch.nn.Parameter(net.fc.bias.detach() + 1)
    shifted = net(images)
    net.fc.bias.data = net.fc.bias.detach() - 1
    torch.testing.assert_close(net(images), shifted - 1)


def test_model_stays(images):
    """Training the torch module leaves the NNX model as it was."""
    model = Net(rngs=nnx.Rngs(0))
    before = bridge.state_dict(model)
    net = swap.as_torch(model)
    with torch.no_grad():
        for value in net.state_dict().values():
            value.add_(1)
    for name, value in bridge.state_dict(model).items():
        np.testing.assert_array_equal(value, before[name])


def test_compiled_once(images):
    """A shape, in a mode, is traced once, however often weights change."""
    traced = []

    class Watched(Net):
        def __call__(self, x, *, rngs=None):
            traced.append(x.shape)
            return super().__call__(x, rngs=rngs)

    net = swap.as_torch(Watched(rngs=nnx.Rngs(0)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for batch in (images, images[:4], images, images[:4]):
        optimizer.zero_grad()
        net(batch).sum().backward()
        optimizer.step()
    assert traced == [(6, 6, 6, 3), (4, 6, 6, 3)]


def test_dropout_follows_torch(net, images):
    """The same torch seed gives the same numbers, another draw others, evaluation none."""
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(net(images))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(found[2], net(images))
    net.eval()
    state = torch.get_rng_state()
    assert torch.equal(net(images), net(images))
    assert torch.equal(torch.get_rng_state(), state)


def test_own_generator_of_the_model(images):
    """A model that keeps its generator of random numbers draws from torch's, too."""

    class Own(nnx.Module):
        def __init__(self, rngs):
            self.fc = nnx.Linear(6, 6, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.dropout(self.fc(x))

    net = swap.as_torch(Own(nnx.Rngs(0)))
    x = torch.ones(4, 6)
    torch.manual_seed(0)
    first, second = net(x), net(x)
    torch.manual_seed(0)
    assert torch.equal(net(x), first)
    assert not torch.equal(first, second)
    assert (first == 0).any()
    assert (net.eval()(x) != 0).all()


def test_part_in_evaluation(net, images):
    """A part that is set to evaluation alone is so: its statistics rest, dropout goes on."""
    net.train()
    net.bn.eval()
    before = net.bn.running_mean.clone()
    assert not torch.equal(net(images), net(images))
    assert torch.equal(net.bn.running_mean, before)
    net.bn.train()
    net(images)
    assert not torch.equal(net.bn.running_mean, before)
    assert net.bn.num_batches_tracked == 1


def test_parts_and_methods():
    """Submodules and methods compute what the twin's do."""
    ours, theirs, (image,) = _both("vae")
    for found, wanted in zip(ours.encode(image), theirs.encode(image), strict=True):
        _close(found, wanted, "encode")
    _close(ours.encoder(image), theirs.encoder(image), "encoder")
    _close(ours.z_mean(ours.flatten(ours.encoder(image))), theirs.encode(image)[0], "z_mean")
    assert ours.n_latent == theirs.n_latent
    with pytest.raises(AttributeError, match="has no attribute 'encodes'"):
        _ = ours.encodes


def test_copies(net, images, tmp_path):
    """Copied, pickled and saved modules compute the same, and are of their own."""
    net(images).sum().backward()
    net.eval()
    copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    torch.save(net.state_dict(), tmp_path / "net.pt")
    other = swap.as_torch(Net(rngs=nnx.Rngs(5))).eval()
    assert not torch.equal(other(images), net(images))
    other.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    for one in (*copies, other):
        assert torch.equal(one(images), net(images))
        with torch.no_grad():
            one.fc.bias.add_(1)
        assert not torch.equal(one(images), net(images))


def test_tied_weights():
    """Weights that the model shares are one parameter under both names."""
    ours, theirs, _ = _both("bert")
    copies = {k for k, v in theirs.state_dict(keep_vars=True).items()} - {
        k for k, _ in theirs.named_parameters()
    }
    assert copies == set(ours.state_dict()) - {k for k, _ in ours.named_parameters()}


def test_accumulation_and_clipping(images):
    """Gradients of two halves add up to those of the whole, and are clipped as ever."""
    net = swap.as_torch(Net(rngs=nnx.Rngs(0)), copy="allow").eval()
    net(images).sum().backward()
    whole = [value.grad.clone() for value in net.parameters()]
    net.zero_grad()
    for half in images.split(3):
        net(half).sum().backward()
    for value, wanted in zip(net.parameters(), whole, strict=True):
        torch.testing.assert_close(value.grad, wanted)
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1)
    assert norm > 0.1
    assert torch.nn.utils.get_total_norm(v.grad for v in net.parameters()) <= 0.1 + 1e-6


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(net, images, reentrant):
    """Gradients of a module that is computed again are those of one that is not."""
    images = images.requires_grad_(reentrant)
    found = []
    for call in (lambda x: checkpoint(net, x, use_reentrant=reentrant), net):
        net.zero_grad()
        torch.manual_seed(0)
        call(images).square().sum().backward()
        found.append([value.grad.clone() for value in net.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_autocast(images):
    """Under autocast JAX computes in bfloat16, about as torch does; gradients stay float32."""
    ours = swap.as_torch(Net(rngs=nnx.Rngs(0), dropout=0.0), copy="never")
    theirs = _twin(0.0)
    names = dict(zip(theirs.state_dict(), ours.state_dict(), strict=True))
    theirs.load_state_dict({k: ours.state_dict()[v] for k, v in names.items()})
    found = []
    for net in (ours, theirs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = net(images)
        assert outputs.dtype == torch.bfloat16
        outputs.float().square().mean().backward()
        found.append(outputs.float())
        assert {value.grad.dtype for value in net.parameters()} == {torch.float32}
    torch.testing.assert_close(*found, rtol=0.05, atol=0.05)
    exact = ours(images)
    assert exact.dtype == torch.float32
    assert not torch.equal(exact, found[0])


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")  # and there alone
@pytest.mark.parametrize("training", [False, True])
def test_torch_compile(net, images, training):
    """A whole graph with the module as one operation: the numbers of the code as it is."""
    net.train(training)
    before = copy.deepcopy(net.state_dict())

    def loss(x, y):
        return torch.nn.functional.cross_entropy(net(torch.sin(x)) * 3, y).abs()

    y = torch.arange(6) % 5
    found = []
    for function in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        net.load_state_dict(before)
        net.zero_grad()
        torch.manual_seed(0)
        value = function(images, y)
        value.backward()
        found.append([value, *(v.grad.clone() for v in net.parameters()), *net.buffers()])
        found[-1] = [x.detach().clone() for x in found[-1]]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_data_loader(net, images):
    """Batches of a DataLoader with workers are shared like any others."""
    rows = torch.utils.data.TensorDataset(images, torch.arange(6))
    loader = torch.utils.data.DataLoader(
        rows, batch_size=2, num_workers=1, multiprocessing_context="forkserver"
    )
    net.eval()
    found = torch.cat([net(batch) for batch, _ in loader])
    torch.testing.assert_close(found, net(images))


WORKERS = """
import sys
import jax, torch
from flax import nnx
from flaxnets import swap

class Computed(torch.utils.data.Dataset):
    def __init__(self):
        self.net = swap.as_torch(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.net(torch.full((3,), float(index))).detach()

if __name__ == "__main__":
    rows = Computed()
    for way in sys.argv[1:]:
        loader = torch.utils.data.DataLoader(rows, 2, num_workers=1, multiprocessing_context=way)
        try:
            (found,) = loader
            print(way, torch.equal(found, torch.stack([rows[0], rows[1]])))
        except swap.SwapError as error:
            print(way, str(error).splitlines()[-1])
"""


def test_computing_workers(tmp_path):
    """A forked worker that calls a module says what to do; one that was started anew computes."""
    script = tmp_path / "script.py"
    script.write_text(WORKERS)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, "fork", "spawn"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "fork flaxnets.swap.arrays.SwapError: JAX cannot compute in a process that was forked from "
        "one where it was at work; start it anew, a DataLoader's by "
        'multiprocessing_context="spawn"',
        "spawn True",
    ], done.stderr


def test_pickled_functions():
    """A network that holds a differentiable function of JAX's, which goes by its name, as ever."""
    module = swap.as_torch(flaxnets.create("transformer", variant="tiny"))
    other = pickle.loads(pickle.dumps(module))
    for one, wanted in zip(other.parameters(), module.parameters(), strict=True):
        assert torch.equal(one, wanted)
    assert pickle.loads(pickle.dumps(jax.nn.relu)) is jax.nn.relu
    own = jax.custom_jvp(np.sin)  # no function of a module
    assert pickle.loads(pickle.dumps(own)).fun is np.sin


def test_arguments():
    """Keywords, pytrees and constants reach the model as they are."""

    class Asked(nnx.Module):
        def __init__(self, rngs):
            self.fc = nnx.Linear(3, 2, rngs=rngs)

        def __call__(self, pair, *, scale, names=()):
            return {name: self.fc(pair["x"]) * scale + pair["y"] for name in names}

    net = swap.as_torch(Asked(nnx.Rngs(0)))
    x, y = torch.ones(4, 3), torch.zeros(4, 2)
    found = net({"x": x, "y": y}, scale=2.0, names=("a", "b"))
    torch.testing.assert_close(found["a"], 2 * net({"x": x, "y": y}, scale=1, names=("b",))["b"])


def test_axes():
    """Sequences with channels cross as they are said to."""

    class Net1d(nnx.Module):
        def __init__(self, rngs):
            self.conv = layers.Conv1d(3, 4, 3, rngs=rngs)

        def __call__(self, x):
            return self.conv(x)

    model = Net1d(nnx.Rngs(0))
    x = torch.randn(2, 3, 8)
    net = swap.as_torch(model, inputs=["blc"])
    wanted = torch.nn.functional.conv1d(x, net.conv.weight, net.conv.bias)
    torch.testing.assert_close(net(x), wanted)
    as_it_is = swap.as_torch(model)(x.mT.contiguous())
    torch.testing.assert_close(as_it_is.mT, wanted)
    other = swap.as_torch(model, inputs=["blc"], outputs=["blf"])(x)
    torch.testing.assert_close(other.mT, wanted)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dtype": torch.float64}, "input 0 is torch.float64, the parameters are torch.float32"),
        ({"dtype": torch.float16}, "input 0 is torch.float16, the parameters are torch.float32"),
        ({"device": "meta"}, "input 0 is on meta, the parameters are on cpu; move one of them"),
    ],
)
def test_wrong_input(net, images, given, message):
    """Another dtype or device than the parameters' is an error, as in torch."""
    with pytest.raises(swap.SwapError, match=message):
        net(images.to(**given))


def test_values_that_decide(images):
    """A model whose Python asks for values is JAX's own error, not a wrong number."""

    class Deciding(nnx.Module):
        def __call__(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(jax.errors.TracerBoolConversionError):
        swap.as_torch(Deciding())(torch.ones(3))


def test_strided_input(net):
    """An input with gaps is copied where that is allowed, with the same outputs."""
    net.eval()
    wide = torch.randn(6, 3, 6, 12)
    with pytest.raises(swap.SwapError, match="input 0 is copied, not shared: its strides"):
        net(wide[..., ::2])
    net.copy = "warn"
    net._calls.clear()
    with pytest.warns(swap.CopyWarning, match="input 0 is copied"):
        found = net(wide[..., ::2])
    torch.testing.assert_close(found, net(wide[..., ::2].contiguous()))


def test_parameter_written_to(net, images):
    """A parameter that changes between forward and backward is torch's own error."""
    loss = net(images).sum()
    with torch.no_grad():
        net.fc.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_frozen(net, images):
    """Frozen parameters get no gradient, the others the same."""
    net.eval()
    net(images).sum().backward()
    wanted = net.fc.weight.grad.clone()
    net.zero_grad()
    net.conv.requires_grad_(False)
    net(images).sum().backward()
    assert net.conv.weight.grad is None
    torch.testing.assert_close(net.fc.weight.grad, wanted)
    assert jnp.isfinite(swap.to_jax(wanted)).all()
