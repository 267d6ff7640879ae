"""Modules and modes: one class a module, and what differs between training and evaluation."""

import torch
from torch import nn

from flaxnets.swap.twin import flax_twin, translate
from flaxnets.swap.twin.modules import Translator

torch.manual_seed(0)


class Modes(nn.Module):
    """What depends on the mode: a number, a function, and a whole branch."""

    def __init__(self, branch):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.branch = branch

    def forward(self, x):
        x = self.linear(x) * (2.0 if self.training else 3.0)
        x = nn.functional.dropout(x, 0.2, self.training)
        if self.branch and self.training:
            return x.tanh() + torch.rand_like(x)
        return x


def test_modes():
    """Numbers are chosen in the statement, branches in an `if`; flax_twin compares both modes."""
    source = translate(Modes(False), [torch.randn(2, 4)]).source
    assert "if self.deterministic:\n            return" not in source
    assert "(3.0 if self.deterministic else 2.0)" in source
    assert "Dropout(0.0 if self.deterministic else 0.2)(x, rngs=rngs)" in source
    assert "        if self.deterministic:\n" in translate(Modes(True), [torch.randn(2, 4)]).source
    for branch in (False, True):
        flax_twin(Modes(branch), [torch.randn(2, 4)])


def test_noise():
    """What draws in evaluation, too, is told from dropout that is switched off."""

    class Noisy(nn.Module):
        def __init__(self, always):
            super().__init__()
            self.always = always

        def forward(self, x):
            return nn.functional.dropout(x, 0.2, self.always or self.training)

    x = [torch.randn(2, 4)]
    assert translate(Noisy(True), x).noisy
    assert not translate(Noisy(False), x).noisy
    assert translate(Noisy(False), x).varies
    assert not translate(nn.Sequential(nn.Tanh()), x).varies


def test_owners():
    """Every weight belongs to the first name that torch has for it."""
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    translator = Translator(nn.ModuleList([first, second, first]), frozenset())
    assert translator.owners[id(second.weight)] == "0.weight"
    assert translator.paths[id(first)] == "0"
    assert translator.is_whole(first)
    assert not translator.is_whole(second)
