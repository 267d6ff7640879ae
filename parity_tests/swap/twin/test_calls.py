"""Calls of modules inside others: layouts between them, shared layers, tied and foreign weights."""

import pytest
import torch
from torch import nn

from flaxnets.swap.twin import TranslationError, flax_twin, translate
from parity_tests.swap.twin.agreement import Applied, agree

torch.manual_seed(0)
IMAGE = torch.randn(2, 3, 6, 6, dtype=torch.float64)


class Tokens(nn.Module):
    """A map to a sequence and back."""

    def forward(self, x):
        b, c, h, w = x.shape
        return x.flatten(2).transpose(1, 2).reshape(b, h, w, c).permute(0, 3, 1, 2)


class Inner(nn.Module):
    """A dense layer whose weight is another module's."""

    def __init__(self, table):
        super().__init__()
        self.out = nn.Linear(4, 5)
        self.out.weight = table

    def forward(self, x):
        return self.out(x)


class Head(nn.Module):
    """What hands the weight on."""

    def __init__(self, table):
        super().__init__()
        self.inner = Inner(table)

    def forward(self, x):
        return self.inner(x * 2)


class Foreign(nn.Module):
    """A part that needs the weights of another part, two modules away."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = Head(self.embed.weight)

    def forward(self, tokens):
        return self.head(self.embed(tokens))


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)),
        nn.Sequential(nn.Conv2d(3, 4, 3), Tokens(), nn.Softmax(1), nn.Flatten(2), nn.Linear(16, 2)),
        nn.Sequential(nn.Linear(6, 5), nn.Conv2d(3, 4, 1), nn.Identity(), nn.LayerNorm((6, 5))),
        nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax2d()), nn.Linear(6, 2)),
    ],
)
def test_layouts_between_layers(module):
    """A Sequential whose layers want different layouts: whole where none changes."""
    source = agree(module.double(), IMAGE)
    assert "nnx.Sequential(" in source


def test_weights_of_parts():
    """Weights that a forward takes from the layers inside it, in torch's layout."""

    class Reading(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 4)
            self.conv = nn.Conv2d(3, 2, 3)
            self.parts = nn.ModuleDict({"norm": nn.LayerNorm(4)})
            self.list = nn.ParameterList([nn.Parameter(torch.randn(4))])

        def forward(self, x):
            y = x @ self.linear.weight.T + self.linear.bias * self.list[0]
            return self.parts["norm"](y) * self.parts["norm"].weight + self.conv.weight.sum()

    agree(Reading().double(), IMAGE)


def test_foreign_weights():
    """A tied weight that belongs to another part of the model is handed to the call."""
    module = Foreign()
    twin = flax_twin(module, [torch.randint(5, (2, 3))])
    assert type(twin).tied_weights == {"head.inner.out.weight": "embed.weight"}


def test_shared_module():
    """One module under two names, in two parents."""
    layer = nn.Linear(4, 4)
    module = nn.ModuleDict({"a": nn.Sequential(layer, nn.Tanh()), "b": nn.Sequential(layer)})
    agree(_Both(module).double(), torch.randn(3, 4, dtype=torch.float64))


class _Both(nn.Module):
    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def forward(self, x):
        return self.parts["b"](self.parts["a"](x))


def test_called_in_two_ways():
    """A module whose calls have different arguments is refused."""

    class Either(nn.Module):
        def forward(self, x, y=None):
            return x if y is None else x + y

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.either = Either()

        def forward(self, x):
            return self.either(x, self.either(x))

    with pytest.raises(TranslationError, match="Either is called in two ways"):
        translate(Applied(Twice()), [IMAGE])
