"""What is drawn and what was measured: extremes, gaps, places on the axes."""

import math
import random
import re

import pytest

from flaxnets.page import Series, chart
from flaxnets.page.chart import BOTTOM, COLUMNS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, thinned


def _polylines(drawn):
    return [
        [tuple(map(float, pair.split(","))) for pair in points.split()]
        for points in re.findall(r'<polyline[^>]* points="([^"]*)"', drawn)
    ]


def test_places():
    """The corners of the data are the corners of the plot."""
    (line,) = _polylines(
        chart("loss", [Series("training", [(1, 8.0), (2, 4.0), (3, 0.0)])], "step")
    )
    assert line[0] == (LEFT, TOP)
    assert line[1] == ((LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2)
    assert line[2] == (WIDTH - RIGHT, HEIGHT - BOTTOM)


def test_logarithmic_places():
    """On a logarithmic axis equal ratios are equal distances; ticks are powers of ten."""
    drawn = chart("loss", [Series("", [(1, 1.0), (2, 0.1), (3, 1e-2)])], "step", logarithmic=True)
    (line,) = _polylines(drawn)
    assert line[1][1] - line[0][1] == line[2][1] - line[1][1] == (HEIGHT - BOTTOM - TOP) / 2
    for tick in ("0.01", "0.1", "1"):
        assert f'text-anchor="end">{tick}</text>' in drawn


@pytest.mark.parametrize(
    ("low", "high", "logarithmic"),
    [
        *[(0, 1, False), (-3, 7e9, False), (0.9999, 1.0, False), (5, 5, False), (0, 0, False)],
        *[(1e-12, 1e3, True), (0.5, 0.6, True), (2, 11, True), (3, 3, True), (1, 1e6, True)],
    ],
)
def test_ticks(low, high, logarithmic):
    """Two to seven different numbers are written at each axis, inside the plot."""
    drawn = chart("y", [Series("y", [(0, low), (9, high)])], "step", logarithmic=logarithmic)
    labels = re.findall(r'y="([\d.]+)" text-anchor="end">([^<]+)<', drawn)
    assert 2 <= len({number for _, number in labels}) == len(labels) <= 7
    assert all(TOP <= float(at) - 4 <= HEIGHT - BOTTOM for at, _ in labels)


def test_thinned():
    """Of 20,000 noisy points a twentieth is left; the extremes, ends and gaps are among them."""
    noise = random.Random(0)
    points = [(x, noise.gauss(0, 1)) for x in range(20_000)]
    points[777] = (777, 99.0)
    points[12_345] = (12_345, -99.0)
    points[5_000] = (5_000, math.nan)
    left = thinned(points)
    assert len(left) <= 5 * COLUMNS
    assert {points[at] for at in (0, 777, 12_345, 19_999)} <= set(left)
    assert [x for x, y in left if math.isnan(y)] == [5_000]
    assert [x for x, _ in left] == sorted({x for x, _ in left})
    assert thinned(points[:50]) == points[:50]


def test_gaps():
    """NaN and infinity break the line, are counted, and the rest is where it would be."""
    values = [1.0, 2.0, math.nan, math.inf, 3.0, math.nan, 4.0, 5.0]
    drawn = chart("loss", [Series("training", list(enumerate(values)))], "step")
    assert [len(line) for line in _polylines(drawn)] == [2, 2]
    assert drawn.count('class="dot"') == 1
    assert "not finite: 3, first at step 2" in drawn
    assert "nan" not in drawn
    assert "inf," not in drawn


def test_not_positive():
    """A logarithm leaves out 0 and less, and says so."""
    series = [Series("training", [(1, 0.0), (2, -1.0), (3, 1.0), (4, 9.0)])]
    assert "not positive and finite: 2, first at step 1" in chart(
        "loss", series, "step", logarithmic=True
    )
    assert "left out" not in chart("loss", series, "step")


def test_nothing_finite():
    """Where nothing can be drawn, that is said."""
    drawn = chart("loss", [Series("training", [(1, math.nan)])], "step")
    assert "first at step 1" in drawn
    assert "<svg" not in drawn


def test_series():
    """Several series have their colours, names and kinds; one needs no legend."""
    lines = [
        Series("training", [(1, 1.0), (9, 2.0)]),
        Series("evaluation", [(5, 1.5)], "circles"),
        Series("<guess>", [(1, 0.5), (9, 0.5)], "dashed"),
    ]
    drawn = chart("accuracy", lines, "step", events={4: "resumed & on"})
    assert "<title>5: 1.5</title>" in drawn
    assert "<title>resumed &amp; on</title>" in drawn
    assert "&lt;guess&gt;</span>" in drawn
    assert drawn.index("training</span>") < drawn.index("evaluation</span>")
    assert "</span>" not in chart("accuracy", lines[:1], "step")
    with pytest.raises(ValueError, match="4 series"):
        chart("accuracy", [*lines, lines[0]], "step")
