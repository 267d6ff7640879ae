"""The twin of torch_ref's networks, of the seeds' classes and of models made up for the test."""

import copy
import inspect
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flaxnets
from flaxnets import bridge, compile_options, parity
from flaxnets.specs import Input
from flaxnets.swap import flax_twin
from flaxnets.swap.twin import TranslationError, load, translate
from flaxnets.swap.twin.functional import FUNCTIONS
from flaxnets.swap.twin.model import carry, describe
from flaxnets.swap.twin.modules import TRANSLATIONS
from parity_tests.swap.twin import user_models
from parity_tests.swap.twin.agreement import Applied

BATCH = 3
BOUND = 1e-10  # of the largest magnitude

TOKENS = Input(name="tokens", shape=(3, 5), axes="bt", high=9)
PRESENT = Input(name="present", shape=(3, 5), axes="bt", high=2)
# Each class with its arguments and the shapes of its inputs; all real unless described.
USERS = {
    "SeedConv2DNet": ((10,), [(2, 3, 20, 20)]),
    "SeedRNN": ((10, 32, 2, 5), [(2, 6, 10)]),
    "SeedAutoencoder": ((10, 8, 5), [(4, 10)]),
    "SeedImageAutoencoder": (((1, 5, 6),), [(2, 1, 5, 6)]),
    "SeedGenerator": ((), [(2, 200, 1, 1)]),
    "SeedDiscriminator": ((), [(2, 1, 64, 64)]),
    "SeedMLP": ((), [(2, 1, 28, 28)]),
    "SeedCharRNN": ((10,), [(57,), (1, 128)]),
    "SeedVAE": (((1, 16, 16), 4), [(2, 1, 16, 16)]),
    "SeedMyModel": ((), [(2, 100)]),
    "SeedLeNet": ((), [(2, 1, 32, 32)]),
    "SeedLSTMTagger": ((6, 6, 9, 3), [Input(name="sentence", shape=(5,), axes="t", high=9)]),
    "ResNet": ((), [(3, 2, 8, 8)]),
    "Inception": ((), [(3, 3, 6, 5)]),
    "Shared": ((), [TOKENS]),
    "Functional": ((), [(3, 2, 8, 7)]),
    "HandAttention": ((), [(3, 5, 8), PRESENT]),
}
FIXED_BATCH = ("SeedCharRNN", "SeedLSTMTagger")  # the one takes a word, the other a sentence


def _user(name):
    torch.manual_seed(0)
    arguments, given = USERS[name]
    module = getattr(user_models, name)(*arguments)
    return module, [torch.randn(each) if isinstance(each, tuple) else each for each in given]


@pytest.fixture(autouse=True)
def _implicit_dim():
    """No warning of torch where the seeds leave a softmax's axis to the shape."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.nn.functional._get_softmax_dim", _softmax_dim)
        yield


def _softmax_dim(name, ndim, stacklevel):
    return 0 if ndim in (0, 1, 3) else 1


def _outputs(models, inputs):
    """Outputs of models in evaluation, as one compiled program gives them."""
    views = {"deterministic": True, "use_running_average": True}
    graph, state = nnx.split(
        nnx.List([nnx.view(model, **views, raise_if_not_found=False) for model in models])
    )

    def run(state, inputs):
        found = [model(*inputs) for model in nnx.merge(graph, state, copy=True)]
        return [jax.tree.leaves(outputs) for outputs in found]

    options = compile_options.known(compile_options.UNOPTIMISED)
    return jax.jit(run, compiler_options=options)(state, inputs)


def _close(ours, theirs):
    assert np.shape(ours) == np.shape(theirs)
    scale = np.abs(theirs).max(initial=1e-6)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=BOUND * scale)


@pytest.mark.parametrize("name", flaxnets.names())
def test_architecture(name):
    """The twin and the hand-written one; torch_ref's model is what flax_twin compares it with."""
    spec = flaxnets.spec(name, "tiny")
    module = flaxnets.build(spec, "torch").double().eval()
    twin = flax_twin(module, spec.inputs(BATCH))
    hand = flaxnets.build(spec, dtype="float64")
    with jax.enable_x64(True):
        bridge.load_state_dict(hand, module.state_dict())
        pair = parity.Pair(hand, module, spec.inputs(BATCH))
        ours, theirs = _outputs((twin, hand), pair.flax_inputs())
        for one, other in zip(ours, theirs, strict=True):
            _close(one, other)


@pytest.mark.parametrize("name", USERS)
def test_user_model(name):
    """The twin and its module (that is flax_twin's own check), then on another batch."""
    module, inputs = _user(name)
    module.eval()
    state = copy.deepcopy(module.state_dict())
    twin = flax_twin(module, inputs)
    for key, value in module.state_dict().items():
        assert torch.equal(value, state[key]), f"{key} was changed"
    if name in FIXED_BATCH or name == "SeedVAE":  # which draws
        return
    more = 5
    described = [describe(each, i) for i, each in enumerate(inputs)]
    torch_inputs = [
        torch.randn(more, *each.shape[1:])
        if isinstance(each, torch.Tensor)
        else torch.randint(each.high, (more, *each.shape[1:]))
        for each in inputs
    ]
    flax_inputs = [
        jnp.moveaxis(jnp.asarray(x.numpy()), 1, -1) if "c" in d.axes else jnp.asarray(x.int())
        if not x.is_floating_point() else jnp.asarray(x.numpy())
        for x, d in zip(torch_inputs, described, strict=True)
    ]  # fmt: skip
    with torch.no_grad():
        wanted = module(*torch_inputs)
    (found,) = _outputs([twin], flax_inputs)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for ours, theirs in zip(found, wanted, strict=True):
        ours = np.asarray(ours)
        image = any("c" in d.axes and ours.ndim == len(d.axes) for d in described)
        ours = np.moveaxis(ours, -1, 1) if image else ours
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_names_and_structure():
    """The twin's names and the module's: weights cross strictly, both ways, and tied ones once."""
    module, inputs = _user("Shared")
    twin = load(translate(module, inputs))
    carry(module, twin)
    state = bridge.state_dict(twin)
    assert {k: v.shape for k, v in state.items()} == {
        k: tuple(v.shape) for k, v in module.state_dict().items()
    }
    assert state["steps"].dtype == np.int64
    twin, block = load(translate(*_user("ResNet"))), "layer1.layers.1.conv2"
    for part in block.split("."):
        twin = twin[int(part)] if part.isdigit() else getattr(twin, part)
    assert type(twin).__name__ == "Conv2d"


def test_source_of_the_twin():
    """The text that was run is the class's own source, and has one class for like blocks."""
    twin = load(translate(*_user("ResNet")))
    source = inspect.getsource(inspect.getmodule(type(twin)))
    assert "class BasicBlock(nnx.Module)" in source
    assert "def __init__(self, in_channels: int, *, rngs: nnx.Rngs)" in source
    assert "class BasicBlock3" not in source
    assert inspect.getsource(type(twin)).startswith("class ResNet(nnx.Module)")


def test_mode():
    """The twin and its module are both in evaluation, or both in training."""
    module, inputs = _user("Functional")
    x = jnp.ones((2, 8, 7, 2))
    np.testing.assert_array_equal(*(flax_twin(module.eval(), inputs)(x) for _ in range(2)))
    twin = flax_twin(module.train(), inputs)
    one, other = (twin(x, rngs=nnx.Rngs(seed)) for seed in range(2))
    assert not np.array_equal(one, other)


def test_untranslatable_lines():
    """Every line that decides by values is named, with its text."""
    with pytest.raises(TranslationError) as refused:
        flax_twin(user_models.Undecided(), [torch.randn(2, 3)])
    problems = refused.value.problems
    lines, start = inspect.getsourcelines(user_models.Undecided)
    expected = [
        start + i for i, line in enumerate(lines) if ".sum() > 0" in line or ".item()" in line
    ]
    assert [problem.line for problem in problems] == expected
    assert "if x.sum() > 0:" in str(refused.value)
    assert "scale = x.max().item()" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_module_that_fails():
    """What the user's own code raises is told with its line: the seed's `self.self`."""
    with pytest.raises(TranslationError, match=r"user_models.py:\d+: BrokenAutoencoder in eval"):
        flax_twin(user_models.BrokenAutoencoder(10, 8, 5), [torch.randn(2, 10)])
    with pytest.raises(TranslationError, match="forward does not take these inputs"):
        flax_twin(user_models.SeedMyModel(), [])


def test_wrong_translation_is_caught(monkeypatch):
    """A translation that is not torch's function does not get past flax_twin."""
    monkeypatch.setitem(TRANSLATIONS, "gelu", FUNCTIONS["silu"])
    module = Applied(torch.nn.functional.gelu)
    with pytest.raises(TranslationError, match=r"is not its equal: Applied .* forward: error"):
        flax_twin(module, [torch.randn(2, 3)])


def test_style(tmp_path):
    """The source as it is written and as ruff would write it."""
    for name in flaxnets.names():
        spec = flaxnets.spec(name, "tiny")
        source = translate(flaxnets.build(spec, "torch"), spec.inputs(2)).source
        (tmp_path / f"{name}.py").write_text(source)
    for name in USERS:
        (tmp_path / f"{name}.py").write_text(translate(*_user(name)).source)
    ours = 'lint.isort.known-first-party = ["flaxnets"]'
    for command in (["format", "--diff"], ["check", "--select", "E,F,I,W", "--config", ours]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--line-length", "100", "--no-cache", "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout
