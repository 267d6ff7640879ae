"""The diagnosis that stands in the row of a failed check."""

import jax
import torch
from flax import nnx

from flaxnets import layers, parity
from flaxnets.parity.diagnosis import explanation
from flaxnets.parity.mutations.chain import CHAINS
from flaxnets.parity.mutations.mutation import call

TANH = call(layers.GELU, lambda call, layer, x: jax.nn.gelu(x))


def _row(check):
    flax, twin, given = CHAINS["gelu"]()
    with TANH():
        (row,) = parity.check(flax, twin, given, [check]).rows
    return row


def test_row_of_a_failed_check():
    """A row has place, cause, arrays with both sides' statistics, and the layers' errors."""
    row = _row("intermediates")
    assert (row.place, row.cause) == ("act", "GELU by tanh")
    assert [name for name, _ in row.layers] == ["dense#1", "act#1"]
    assert row.layers[0][1] < 1e-12 < row.layers[1][1]
    assert row.arrays[0].name == "act#1"
    assert row.arrays[0].torch.mean != row.arrays[0].flax.mean


def test_row_of_a_passed_check(monkeypatch):
    """A check that passes is not diagnosed; its arrays are there all the same."""
    monkeypatch.setitem(explanation.EXPLANATIONS, "forward", None)
    (row,) = parity.check(*CHAINS["gelu"](), ["forward"]).rows
    assert row.passed
    assert (row.place, row.cause) == ("", "")
    assert row.arrays[0].torch == row.arrays[0].torch


def test_failed_diagnosis_keeps_the_finding(monkeypatch):
    """A diagnosis that raises says so, and nothing is lost."""

    def broken(*args):
        raise RuntimeError("no idea")

    monkeypatch.setitem(explanation.EXPLANATIONS, "forward", broken)
    row = _row("forward")
    assert not row.passed
    assert (row.place, row.cause) == ("output", "not diagnosed (RuntimeError: no idea)")


def test_unknown_check():
    """A check that nobody taught the diagnosis keeps what it found itself."""
    pair = parity.Pair(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), torch.nn.Linear(2, 2), [])
    assert explanation.explain("speed", pair, "a") == ("a", "")


def test_raising_model_is_located():
    """Of a model that raises, the layer and the error are named."""

    class Broken(nnx.Module):
        def __call__(self, x):
            raise RuntimeError("no such thing")

    class Net(nnx.Module):
        def __init__(self):
            self.first = nnx.Linear(5, 4, rngs=nnx.Rngs(0))
            self.second = nnx.Linear(4, 4, rngs=nnx.Rngs(0))

        def __call__(self, x):
            self.first(x)
            raise RuntimeError("no such thing")

    class Twin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(5, 4), torch.nn.Linear(4, 4)

        def forward(self, x):
            return self.second(self.first(x))

    from flaxnets.specs import Input

    given = [Input(name="x", shape=(2, 5), axes="bf")]
    (row,) = parity.check(Net(), Twin(), given, ["forward"]).rows
    assert (row.place, row.cause) == ("second", "Flax raises RuntimeError: no such thing")
