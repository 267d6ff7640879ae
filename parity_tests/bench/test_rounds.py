"""The benchmark's arithmetic, and what becomes of contenders that fail."""

import pytest

from flaxnets.bench import rounds
from flaxnets.bench.case import Case
from flaxnets.bench.process import CaseError
from flaxnets.bench.result import OURS, TORCH, Result, Row, Timed


def _row(contender, **forms):
    timed = [Timed(form, 1, seconds) for form, seconds in forms.items()]
    return Row("mlp", "default", 32, contender, timed=timed)


def test_medians_spread_and_ratio():
    """The figures of a row and those worked out by hand agree."""
    ours, torch = rounds.fill(
        [
            _row(OURS, single=[0.002, 0.001, 0.004, 0.003, 0.002]),
            _row(TORCH, slow=[0.005, 0.009, 0.001], fast=[0.004, 0.004, 0.006]),
        ]
    )
    assert ours.step_ms == pytest.approx(2)
    assert ours.spread == pytest.approx(0.5)  # quartiles 2 and 3 ms
    assert ours.examples_per_s == pytest.approx(16_000)
    assert ours.ratio_to_torch_eager == pytest.approx(2)
    assert torch.form == "fast"
    assert torch.ratio_to_torch_eager == pytest.approx(1)


def test_no_ratio_without_torch():
    """Where torch has no time there is no ratio, and our own time stays."""
    rows = [_row(OURS, single=[0.002]), _row(TORCH)]
    rows[1].reason = "torch is not installed"
    ours, torch = rounds.fill(rows)
    assert ours.step_ms == pytest.approx(2)
    assert ours.ratio_to_torch_eager is torch.step_ms is None
    assert Result({}, [ours, torch]).geometric_mean is None


class _FakeProcess:
    """Takes turns by the clock of a test; contenders that are named so fail where they say."""

    log: list = []  # noqa: RUF012 (the test's own)
    first_step, memory_mb = 1.5, 100.0

    def __init__(self, case, cache):
        self.name = case.contender
        self.fails(at="start")

    def fails(self, at):
        self.log.append((self.name, at))
        if self.name.endswith(at):
            raise CaseError(f"no {at}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.log.append((self.name, "close"))

    def ask(self, what):
        self.fails(at=what)
        if what == "settle":
            return {"forms": [["single", 1]]}
        return {"seconds": [0.001]}


def test_contenders_take_turns_and_failures_are_rows(monkeypatch):
    """Each round asks every contender that is still there; all processes are closed."""
    monkeypatch.setattr(rounds, "CaseProcess", _FakeProcess)
    monkeypatch.setattr(_FakeProcess, "log", [])
    names = [OURS, "bad start", TORCH, "bad settle", "bad turn"]
    rows = rounds.time_cases([Case("mlp", name) for name in names], rounds=2)
    assert [row.contender for row in rows] == names
    assert [row.reason for row in rows] == ["", "no start", "", "no settle", "no turn"]
    turns = [name for name, at in _FakeProcess.log if at == "turn"]
    assert turns == [OURS, TORCH, "bad turn", OURS, TORCH]
    assert rows[0].ratio_to_torch_eager == 1
    started = [name for name, at in _FakeProcess.log if at == "start" and name != "bad start"]
    assert sorted(started) == sorted(name for name, at in _FakeProcess.log if at == "close")
