"""Tracing: what is recorded of the user's code, and that it leaves nothing behind."""

import functools

import einops
import pytest
import torch
from torch import nn

from flaxnets.swap.twin import TranslationError, translate
from flaxnets.swap.twin.trace import FACTORIES, Tracer
from parity_tests.swap.twin import user_models
from parity_tests.swap.twin.agreement import Applied, agree

torch.manual_seed(0)
X = torch.randn(3, 4, dtype=torch.float64)


def _source(function, *inputs):
    return translate(Applied(function), inputs).source


def test_nothing_is_left_behind():
    """The packages and the user's file before and after, even where the user's code raises."""
    names = [(torch, name) for name in FACTORIES] + [
        (einops, "rearrange"),
        (nn.Embedding, "forward"),
    ]
    before = [getattr(owner, name) for owner, name in names]
    translate(user_models.Shared(), [torch.zeros(2, 3, dtype=torch.long)])
    with pytest.raises(TranslationError):
        translate(user_models.BrokenAutoencoder(4, 3, 2), [torch.randn(2, 4)])
    assert [getattr(owner, name) for owner, name in names] == before
    assert "len" not in vars(user_models)


def test_in_place():
    """What is changed in place, and the same as a new value; a view of it is refused."""

    def changed(x):
        y = x * 2
        same = y
        y += 1
        y.mul_(3).clamp_(min=-1)
        y[0] = 7
        return same + torch.relu_(y * 1) + nn.functional.relu(y.neg(), inplace=True)

    agree(changed, X)

    def viewed(x):
        y = x * 2
        row = y[0]
        y.add_(1)
        return row

    with pytest.raises(TranslationError, match=r"of which another is a view.*y\.add_"):
        _source(viewed, X)


def test_change_inside_a_module():
    """A tensor that a submodule changed and its caller reads again is refused."""

    class Inner(nn.Module):
        def forward(self, x):
            return x.mul_(2) + 1

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def forward(self, x):
            y = x + 1
            return self.inner(y) + y

    with pytest.raises(TranslationError, match="inner changed this tensor in place"):
        translate(Outer(), [X])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x if x[0, 0] > 0 else -x,
        lambda x: x * int(x[0, 0]),
        lambda x: x * float(x.mean()),
        lambda x: x * x.tolist()[0][0],
        lambda x: x[: int(x.argmax())],
        lambda x: x if torch.equal(x, x) else -x,
        lambda x: x * (1.0 in x),
    ],
)
def test_values(function):
    """What Python asks of a tensor's values is refused with its line."""
    with pytest.raises(TranslationError, match=r"needs the values of a tensor: .*lambda x"):
        _source(function, X)


def test_sizes():
    """Sizes that are handed on stay symbolic; where Python needs a number it is the example's."""
    assert "inputs_0.shape[0]" in _source(_halves, X)
    assert "inputs_0[0]" in _source(lambda x: sum(x[i] for i in range(len(x))), X)
    assert "shape" not in _source(lambda x: x * (2.0 if x.size(1) == 4 else 3.0), X)


def _halves(x):
    rows = x.size(0) * 2
    return x.reshape(rows, x.shape[1] // 2)


def test_names():
    """The user's names of values, in functions that the forward calls as well."""

    def helper(value):
        centred = value - value.mean(0)
        return centred * centred

    def forward(x):
        squares = helper(x)
        return squares / squares.sum()

    source = _source(forward, X)
    assert "centred = inputs_0 - inputs_0.mean(axis=0)" in source
    assert "squares = centred * centred" in source


def test_hooks():
    """A module with hooks is refused: they are not its forward."""
    module = user_models.SeedAutoencoder(4, 3, 2)
    module.relu.register_forward_hook(lambda *_: None)
    with pytest.raises(TranslationError, match="ReLU has hooks"):
        translate(module, [torch.randn(2, 4)])


def test_inherited_forward():
    """A call of torch's own forward by a class derived from its layer is one node."""

    class Doubled(nn.Linear):
        def forward(self, x):
            return super().forward(x * 2)

    tracer = Tracer(nn.Linear, lambda module: True)
    graph = tracer.run(Doubled(4, 2), (X.float(),), {})
    targets = [getattr(node.target, "__name__", node.target) for node in graph.nodes]
    assert targets == ["x", "mul", "super_call", "output"]
    assert isinstance(vars(nn.Linear)["forward"], type(functools.partial)) is False
