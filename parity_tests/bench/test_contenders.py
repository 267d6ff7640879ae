"""Contenders train what they say, in the forms that they say."""

import pytest

import flaxnets
from flaxnets import bridge
from flaxnets.bench import contenders
from flaxnets.bench.machine import cores
from flaxnets.data import drawn


def test_torch_forms():
    """Torch is timed with one thread and with one a core, and images in both memory formats."""
    spec = flaxnets.spec("lenet", "tiny")
    settled = contenders.torch_eager(spec, [drawn.batch(spec, 4)]).settled
    assert {form.form for form in settled()} == {
        f"{count} thread{'s' if count > 1 else ''}{layout}"
        for count in {1, cores()}
        for layout in ("", ", channels last")
    }


@pytest.mark.parametrize("name", ["gan", "lstm_tagger"])
@pytest.mark.parametrize("contender", ["torch eager", "nnx.jit", "as_torch"])
def test_trains_every_kind(name, contender):
    """Two phases with BatchNorm, and several inputs: contenders take whole steps of them."""
    spec = flaxnets.spec(name, "tiny")
    batches = [drawn.batch(spec, 4, seed) for seed in range(2)]
    contenders.CONTENDERS[contender](spec, batches).run(3)


def test_tutorial_moves_both_halves_of_a_gan(monkeypatch):
    """The tutorial's loop and our step both move generator and discriminator."""
    model = flaxnets.create("gan", variant="tiny")
    before = bridge.state_dict(model)
    monkeypatch.setattr(flaxnets, "build", lambda spec: model)
    spec = flaxnets.spec("gan", "tiny")
    contenders.nnx_jit(spec, [drawn.batch(spec, 4)]).run(1)
    after = bridge.state_dict(model)
    moved = {name for name in before if (before[name] != after[name]).any()}
    assert {name for name in before if name.endswith("weight")} <= moved
