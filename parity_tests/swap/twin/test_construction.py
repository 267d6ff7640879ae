"""Constructors: one class for modules that differ in numbers, and what else a module holds."""

import numpy as np
import pytest
import torch
from torch import nn

from flaxnets.swap.twin import TranslationError, flax_twin, translate

torch.manual_seed(0)


class Block(nn.Module):
    """A dense layer, normalised or not."""

    def __init__(self, size, width, norm=True, slope=0.1):
        super().__init__()
        self.up = nn.Linear(size, width)
        self.down = nn.Linear(width, size)
        self.norm = nn.LayerNorm(size) if norm else None
        self.act = nn.LeakyReLU(slope)

    def forward(self, x):
        y = self.down(self.act(self.up(x)))
        return y if self.norm is None else self.norm(y)


class Stack(nn.Module):
    """Blocks of several shapes, one that is never called, and constants."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            [Block(4, 5), Block(4, 7, slope=0.01), Block(4, 5, norm=False), Block(4, 5, slope=0.3)]
        )
        self.unused = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.small = torch.tensor([1.0, 2.0, 3.0, 4.0])
        self.register_buffer("large", torch.randn(5, 4), persistent=False)

    def forward(self, x):
        for block in self.blocks:
            x = block(x) + self.small * self.large[0]
        return x


def test_one_class_for_like_modules():
    """Modules that differ in numbers and their class's parameters; others have another class."""
    translation = translate(Stack(), [torch.randn(2, 4)])
    source = translation.source
    assert (
        "def __init__(self, out_features: int, negative_slope: float, *, rngs: nnx.Rngs)" in source
    )
    assert "Block(7, 0.01, rngs=rngs)" in source
    assert "Block2(rngs=rngs)" in source
    assert "Block3" not in source
    assert "self.small = np.array([1.0, 2.0, 3.0, 4.0], np.float32)" in source
    assert list(translation.constants) == ["large"]
    flax_twin(Stack(), [torch.randn(2, 4)])  # strict: the unused weights have their place, too


def test_other_layers():
    """Modules with the same statements and other layers have classes of their own."""

    class Acting(nn.Module):
        def __init__(self, act):
            super().__init__()
            self.act = act

        def forward(self, x):
            return self.act(x)

    module = nn.Sequential(Acting(nn.ReLU()), Acting(nn.Tanh()), Acting(nn.ReLU()))
    source = translate(module, [torch.randn(2, 4)]).source
    assert "class Acting2(" in source
    assert "class Acting3(" not in source
    flax_twin(module, [torch.randn(2, 4)])


def test_equal_blocks():
    """A list of equal modules, and the loop over it."""
    module = nn.ModuleList([Block(4, 5), Block(4, 5)])

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = module

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    source = translate(Loop(), [torch.randn(2, 4)]).source
    assert "nnx.List(Block(rngs=rngs) for _ in range(2))" in source
    assert "for block in self.blocks:\n            x = block(x)\n        return x" in source


def test_private_names():
    """An attribute that the bridge would pass over is refused."""

    class Private(nn.Module):
        def __init__(self):
            super().__init__()
            self._linear = nn.Linear(2, 2)

        def forward(self, x):
            return self._linear(x)

    with pytest.raises(TranslationError, match=r"Private\._linear begins with _"):
        translate(Private(), [torch.randn(2, 2)])


def test_start():
    """Weights that no one has carried yet start about as torch's did."""

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(3))
            self.level = nn.Parameter(torch.full((2,), 0.5))
            self.matrix = nn.Parameter(torch.randn(30, 3))

        def forward(self, x):
            return x @ self.matrix * self.gain * self.level.sum()

    source = translate(Bare(), [torch.randn(2, 30)]).source
    assert "self.gain = nnx.Param(jnp.ones((3,)))" in source
    assert "self.level = nnx.Param(jnp.full((2,), 0.5))" in source
    spread = float(source.partition("normal(")[2].partition(")")[0])
    np.testing.assert_allclose(spread, 1, atol=0.3)
