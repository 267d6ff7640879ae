"""A case's process from outside: it answers, and its end is a one-line error."""

import pytest

from flaxnets.bench import process
from flaxnets.bench.case import Case
from flaxnets.bench.process import CaseError, CaseProcess

TINY = {"variant": "tiny", "batch": 4, "turn": 0.001}


def test_answers(tmp_path):
    """A fresh process and a second one, which finds the first one's compiled programs."""
    case = Case("feedforward", "flaxnets", **TINY)
    with CaseProcess(case, tmp_path) as cold:
        assert cold.first_step > 0
        assert cold.memory_mb > 1
    assert any("cache" in file.name for file in tmp_path.iterdir())
    with CaseProcess(case, tmp_path) as warm:
        ((form, steps),) = warm.ask("settle")["forms"]
        assert (form, steps) in (("single", 1), ("scan", 8), ("scan", 32))
        assert 0 < warm.ask("turn")["seconds"][0] < 1


def test_unknown_contender_is_an_error(tmp_path):
    """What a contender raises arrives as one line."""
    with pytest.raises(CaseError, match=r"^KeyError: 'nobody'$"):
        CaseProcess(Case("feedforward", "nobody", **TINY), tmp_path)


def test_process_that_never_answers_is_ended(tmp_path, monkeypatch):
    """After the time that it is given the process is killed."""
    monkeypatch.setattr(process, "PATIENCE", 0.05)
    with pytest.raises(CaseError, match="the process ended: "):
        CaseProcess(Case("feedforward", "flaxnets", **TINY), tmp_path)
