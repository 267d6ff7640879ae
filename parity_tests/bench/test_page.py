"""The page holds what the table holds, and nothing that it would have to fetch."""

import re

from flaxnets.bench import page
from flaxnets.bench.result import OURS, Result, Row


def test_page():
    """Every row and the machine are there, escaped; nothing is fetched."""
    row = Row("mlp", "default", 32, OURS, step_ms=1.5, ratio_to_torch_eager=2.5)
    failed = Row("mlp", "default", 32, "keras", reason="<b>no</b>")
    text = page.render(Result({"cpu": "EPYC"}, [row, failed]))
    assert "&lt;b&gt;no" in text
    assert "<b>no" not in text
    assert all(word in text for word in ("EPYC", "2.50", "geometric mean: 2.50"))
    assert not re.search(r"src=|url\(|@import|https?:", text)
