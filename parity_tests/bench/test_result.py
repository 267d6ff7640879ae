"""What a benchmark found, as figures, JSON and a table."""

import json

import pytest
from rich.console import Console

from flaxnets.bench.result import COLUMNS, OURS, TORCH, Overhead, Result, Row, cells


def _row(architecture, contender, ratio=None, **more):
    step = None if ratio is None else 1 / ratio
    return Row(
        architecture, "default", 32, contender, step_ms=step, ratio_to_torch_eager=ratio, **more
    )


def test_geometric_mean_is_of_our_own_ratios():
    """The mean over networks counts our contender and no other."""
    rows = [_row("mlp", OURS, 4.0), _row("mlp", TORCH, 1.0), _row("lenet", OURS, 1.0)]
    assert Result({}, rows).geometric_mean == pytest.approx(2)


def test_json():
    """The documented shape; what was not measured is null."""
    rows = [_row("mlp", OURS, 2.0), _row("mlp", "keras", reason="keras is not installed")]
    result = Result({"cpu": "a"}, rows, Overhead(771, 1.05, 1.0, 1.05))
    content = json.loads(result.to_json())
    assert set(content) == {"machine", "cases", "geometric_mean", "overhead"}
    first, second = content["cases"]
    assert first["architecture"] == "mlp"
    assert first["contender"] == "flaxnets"
    assert (first["batch"], first["step_ms"], first["ratio_to_torch_eager"]) == (32, 0.5, 2.0)
    assert second["step_ms"] is second["ratio_to_torch_eager"] is None
    assert second["reason"] == "keras is not installed"
    assert content["overhead"]["ratio"] == 1.05


def test_complete():
    """A failure of another contender is a row; one of ours makes the result incomplete."""
    other = _row("mlp", TORCH, reason="torch is not installed")
    assert Result({}, [_row("mlp", OURS, 1.0), other]).complete
    assert not Result({}, [_row("mlp", OURS, reason="broken"), other]).complete


def test_table():
    """Every row is a line with its ratio or its reason, which may hold anything."""
    rows = [
        _row("mlp", OURS, 2.5, form="scan", steps_per_dispatch=32),
        _row("mlp", "keras", reason="[no] keras"),
    ]
    console = Console(width=250)
    with console.capture() as captured:
        console.print(Result({}, rows).to_table())
    shown = captured.get()
    assert all(word in shown for word in ("scan, 32 steps", "2.50", "[no] keras"))
    assert all(len(cells(row)) == len(COLUMNS) for row in rows)
