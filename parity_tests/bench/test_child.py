"""What a case's process answers, asked in this process."""

import io

import pytest

from flaxnets.bench import child
from flaxnets.bench.case import Case
from flaxnets.bench.contenders import CONTENDERS


def _answers(asked, **fields):
    said = []
    child.answer(
        Case(**fields, variant="tiny", batch=4, turn=0.001), io.StringIO(asked), said.append
    )
    return said


@pytest.mark.parametrize("contender", ["flaxnets", "torch eager", "nnx.jit"])
def test_answers(contender):
    """A first step, forms and turns of each, in the order in which they are asked for."""
    first, settled, *turns = _answers(
        "settle\nturn\nturn\n", architecture="mlp", contender=contender
    )
    assert first["memory_mb"] > 1
    assert len(turns) == 2
    for turn in turns:
        assert len(turn["seconds"]) == len(settled["forms"])
        assert all(0 < seconds < 1 for seconds in turn["seconds"])


@pytest.mark.parametrize(
    ("contender", "raised", "reason"),
    [
        ("keras", None, "there is no Keras model of transformer"),
        ("flaxnets", RuntimeError("broken\nlong story"), "RuntimeError: broken"),
        ("flaxnets", ModuleNotFoundError("...", name="torch"), "torch is not installed"),
    ],
)
def test_failure_is_an_answer(monkeypatch, contender, raised, reason):
    """A contender that fails says why in one line, and the process does not crash."""

    def fail(spec, batches):
        raise raised

    if raised:
        monkeypatch.setitem(CONTENDERS, contender, fail)
    assert _answers("", architecture="transformer", contender=contender) == [{"reason": reason}]
