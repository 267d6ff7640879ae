"""The report: JSON, text and page say what the rows say."""

import dataclasses
import io
import json
from xml.etree import ElementTree

import pytest
from rich.console import Console

from flaxnets.parity import ParityError, Report, Row
from flaxnets.parity.row import Compared, Statistics

PASS = Row("lenet", "tiny", "forward", True, 1e-16, 1e-10, "output", 0.1)
FAIL = Row("lenet", "tiny", "gradients", False, float("inf"), 1e-10, "fc1 <b>&", 0.2)


def test_json():
    """The documented form, strict JSON even with an infinite error."""
    content = json.loads(
        Report([PASS, FAIL]).to_json(), parse_constant=lambda name: pytest.fail(name)
    )
    assert content.keys() == {"results", "versions", "run"}
    assert content["results"][0].keys() == {field.name for field in dataclasses.fields(Row)}
    assert content["results"][1]["error"] is None
    assert {"jax", "flax", "torch", "python"} <= content["versions"].keys()
    assert content["run"]["platform"] == "cpu"
    assert content["run"]["seconds"] == pytest.approx(0.3)


def test_json_of_arrays_and_layers():
    """What is infinite or no number is null at every depth."""
    nan, inf = float("nan"), float("inf")
    array = Compared("fc1", inf, Statistics(nan, 1.0, -inf, 2.0), None)
    row = dataclasses.replace(FAIL, arrays=(array,), layers=(("fc1", inf), ("fc2", 1.0)))
    found = json.loads(Report([row]).to_json())["results"][0]
    assert found["layers"] == [["fc1", None], ["fc2", 1.0]]
    statistics = {"mean": None, "std": 1.0, "min": None, "max": 2.0}
    assert found["arrays"] == [{"name": "fc1", "error": None, "torch": statistics, "flax": None}]


def test_junit():
    """A suite for every pair, a case for every check, the failed one with its line."""
    told = dataclasses.replace(FAIL, place="fc1", cause='wrong\x1b[1m "epsilon" <1e-6>')
    other = dataclasses.replace(PASS, architecture="mlp")
    root = ElementTree.fromstring(Report([PASS, told, other]).to_junit())
    assert root.tag == "testsuites"
    assert (root.get("tests"), root.get("failures")) == ("3", "1")
    assert [suite.get("name") for suite in root] == ["lenet-tiny", "mlp-tiny"]
    first = root[0]
    assert (first.get("tests"), first.get("failures"), first.get("time")) == ("2", "1", "0.300")
    assert [case.get("name") for case in first] == ["forward", "gradients"]
    assert [len(case) for case in first] == [0, 1]
    message = first[1][0].get("message")
    line = 'lenet (tiny) gradients: error inf above 1e-10 at fc1; wrong?[1m "epsilon" <1e-6>'
    assert message == line


def test_slowest():
    """The ten that took longest, longest first, and the whole duration."""
    rows = [dataclasses.replace(PASS, check=f"c{i}", seconds=float(i)) for i in range(12)]
    console = Console(file=io.StringIO(), width=100)
    console.print(Report(rows).slowest())
    text = console.file.getvalue()
    assert "66.0 s" in text
    assert text.index("c11") < text.index("c10") < text.index("c2 ")
    assert "c1 " not in text


def test_verdict():
    """One failure, or no row at all, is no pass."""
    assert Report([PASS]).passed
    Report([PASS]).raise_if_failed()
    assert not Report([PASS, FAIL]).passed
    assert not Report([]).passed
    with pytest.raises(ParityError, match="no check was run"):
        Report([]).raise_if_failed()
    with pytest.raises(ParityError, match=r"lenet \(tiny\) gradients: error inf above 1e-10"):
        Report([PASS, FAIL]).raise_if_failed()


def test_table_shows_brackets():
    """An array's name may look like markup."""
    console = Console(file=io.StringIO(), width=200)
    console.print(Report([dataclasses.replace(FAIL, worst="x[bold]")]).to_table())
    assert "x[bold]" in console.file.getvalue()
