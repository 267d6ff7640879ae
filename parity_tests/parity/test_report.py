"""The report: JSON, text and page say what the rows say."""

import json

import pytest

from flaxnets.parity import ParityError, Report, Row

PASS = Row("lenet", "tiny", "forward", True, 1e-16, 1e-10, "output", 0.1)
FAIL = Row("lenet", "tiny", "gradients", False, float("inf"), 1e-10, "fc1 <b>&", 0.2)


def test_json():
    """The documented form, strict JSON even with an infinite error."""
    content = json.loads(
        Report([PASS, FAIL]).to_json(), parse_constant=lambda name: pytest.fail(name)
    )
    assert content.keys() == {"results", "versions"}
    assert {"architecture", "variant", "check", "passed", "error", "bound", "worst"} <= content[
        "results"
    ][0].keys()
    assert content["results"][1]["error"] is None
    assert {"jax", "flax", "torch", "python"} <= content["versions"].keys()


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


def test_page():
    """The page holds every cell, says pass and fail without colour, and escapes names."""
    page = Report([PASS, FAIL]).to_html("a < b")
    assert "✓ 1.0e-16" in page
    assert "✗ inf" in page
    assert "fc1 &lt;b&gt;&amp;" in page
    assert "<title>flaxnets: a &lt; b</title>" in page
    assert "1 of 2 checks passed" in page
    assert "http" not in page, "a self-contained page fetches nothing"
