"""Lines over labelled axes as SVG: thousands of points, gaps where a value is not finite."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float]

# In pixels of a chart that is shown as wide as it is drawn; the page scales it.
WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 10, 40  # margins
COLUMNS = 350  # that a line is thinned to, about one a pixel
TICKS = 6  # steps between the numbers at an axis, at the most
COLOURS = ("first", "second", "third")  # of page.css


@dataclass(frozen=True)
class Series:
    """What is drawn in one colour.

    Attributes:
        name: for the legend.
        points: x and y; x is finite, a y that is not is a gap.
        drawn: as a line, as circles that a line joins, or as a dashed line.
    """

    name: str
    points: Sequence[Point]
    drawn: Literal["line", "circles", "dashed"] = "line"


def chart(
    title: str,
    series: Sequence[Series],
    x: str,
    *,
    logarithmic: bool = False,
    events: Mapping[float, str] | None = None,
) -> str:
    """A chart as an HTML figure.

    Args:
        title: what is measured.
        series: as many as there are `COLOURS` at the most, and in their order.
        x: the name of the horizontal axis.
        logarithmic: whether the vertical axis is; values that are not positive are then gaps.
        events: what happened, by the place on the horizontal axis.

    Raises:
        ValueError: more series than colours.

    >>> "<polyline" in chart("loss", [Series("training", [(1, 2.0), (2, 1.0)])], "step")
    True
    """
    if len(series) > len(COLOURS):
        raise ValueError(f"{title}: {len(series)} series; use {len(COLOURS)} or fewer")
    series = [
        Series(
            line.name,
            [(x, y if y > 0 or not logarithmic else math.nan) for x, y in line.points],
            line.drawn,
        )
        for line in series
    ]
    points = [point for line in series for point in line.points]
    missing = [x for x, y in points if not math.isfinite(y)]
    note = ""
    if missing:
        kind = "not positive and finite" if logarithmic else "not finite"
        note = f"<p>left out, since {kind}: {len(missing)}, first at {x} {min(missing):g}</p>"
    caption = f"<figcaption>{html.escape(title)}{_legend(series)}</figcaption>"
    if len(missing) == len(points):
        return f'<figure class="chart">{caption}{note}</figure>'
    across = _Axis((x for x, _ in points), LEFT, WIDTH - RIGHT)
    up = _Axis((y for _, y in points), HEIGHT - BOTTOM, TOP, logarithmic)
    drawn = [_grid(across, up, x)]
    for place, happened in (events or {}).items():
        at = across(place)
        drawn.append(
            f'<line class="event" x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}">'
            f"<title>{html.escape(happened)}</title></line>"
        )
    for colour, line in zip(COLOURS, series, strict=False):
        drawn.append(f'<g class="{colour}">{_curve(line, across, up)}</g>')
    described = html.escape(f"{title}: {'; '.join(map(_described, series))}")
    return (
        f'<figure class="chart">{caption}<svg role="img" aria-label="{described}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(drawn)}</svg>{note}</figure>'
    )


def thinned(points: Sequence[Point], columns: int = COLUMNS) -> Sequence[Point]:
    """A few points for many: of every stretch the first, last, lowest, highest and first gap.

    >>> thinned([(x, float(x == 700)) for x in range(1000)], 2)
    [(0, 0.0), (499, 0.0), (500, 0.0), (700, 1.0), (999, 0.0)]
    """
    if len(points) <= 5 * columns:
        return points
    kept = []
    for column in range(columns):
        start, end = (len(points) * edge // columns for edge in (column, column + 1))
        finite = [at for at in range(start, end) if math.isfinite(points[at][1])]
        gap = next((at for at in range(start, end) if not math.isfinite(points[at][1])), None)
        chosen = {start, end - 1} | ({gap} if gap is not None else set())
        if finite:
            chosen |= {min(finite, key=lambda at: points[at][1])}
            chosen |= {max(finite, key=lambda at: points[at][1])}
        kept += [points[at] for at in sorted(chosen)]
    return kept


class _Axis:
    """Places of numbers on an axis, in pixels, and the numbers that are written at it."""

    def __init__(
        self, values: Iterable[float], start: float, end: float, logarithmic: bool = False
    ) -> None:
        finite = [value for value in values if math.isfinite(value)]
        self._low, self._high = min(finite), max(finite)
        self._start, self._end, self._logarithmic = start, end, logarithmic
        if self._low == self._high:
            margin = abs(self._low) / 2 or 1
            self._low, self._high = self._low - margin, self._high + margin

    def __call__(self, value: float) -> float:
        low, high = self._scaled(self._low), self._scaled(self._high)
        part = (self._scaled(value) - low) / (high - low)
        return round(self._start + (self._end - self._start) * min(max(part, 0), 1), 1)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self._logarithmic else value

    def ticks(self) -> list[float]:
        """Round numbers: powers of ten on a long logarithmic axis, else equal steps."""
        if self._logarithmic:
            low, high = math.floor(math.log10(self._low)), math.ceil(math.log10(self._high))
            every = math.ceil((high - low) / TICKS)
            powers = range(low, high + 1, every)
            for factors in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))[-1 if every > 1 else 0 :]:
                found = [factor * 10.0**power for power in powers for factor in factors]
                found = [tick for tick in found if self._low <= tick <= self._high]
                if 2 <= len(found) <= TICKS + 1:
                    return found
        step = 10 ** math.floor(math.log10((self._high - self._low) / TICKS))
        step *= next(f for f in (1, 2, 5, 10) if f * step * TICKS >= self._high - self._low)
        first, last = math.ceil(self._low / step), math.floor(self._high / step)
        return [index * step for index in range(first, last + 1)]


def _grid(across: _Axis, up: _Axis, name: str) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    drawn = [f'<line x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>']
    for tick in up.ticks():
        at = up(tick)
        drawn.append(
            f'<line x1="{LEFT}" x2="{right}" y1="{at}" y2="{at}"/>'
            f'<text x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{_written(tick)}</text>'
        )
    for tick in across.ticks():
        at = across(tick)
        drawn.append(
            f'<line x1="{at}" x2="{at}" y1="{bottom}" y2="{bottom + 4}"/>'
            f'<text x="{at}" y="{bottom + 17}" text-anchor="middle">{_written(tick)}</text>'
        )
    middle = (LEFT + right) / 2
    drawn.append(
        f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(name)}</text>'
    )
    return "".join(drawn)


def _written(number: float) -> str:
    """A tick's number, in a few letters.

    >>> [_written(x) for x in (0.30000000000000004, 25000.0, 1e-05, 2e6)]
    ['0.3', '25000', '1e-5', '2e6']
    """
    if number and not 1e-3 <= abs(number) < 1e6:
        mantissa, power = f"{number:.3e}".split("e")
        return f"{float(mantissa):g}e{int(power)}"
    return f"{number:.6g}"


def _curve(line: Series, across: _Axis, up: _Axis) -> str:
    """Polylines between the gaps; a point that is alone between two is a dot."""
    stretches: list[list[tuple[float, float]]] = [[]]
    for x, y in thinned(line.points):
        if math.isfinite(y):
            stretches[-1].append((across(x), up(y)))
        elif stretches[-1]:
            stretches.append([])
    drawn = []
    for stretch in filter(None, stretches):
        if len(stretch) > 1:
            corners = " ".join(f"{x:g},{y:g}" for x, y in stretch)
            drawn.append(f'<polyline class="curve {line.drawn}" points="{corners}"/>')
        elif line.drawn != "circles":
            drawn.append(f'<circle class="dot" cx="{stretch[0][0]}" cy="{stretch[0][1]}" r="2"/>')
    if line.drawn == "circles":
        drawn += [
            f'<circle cx="{across(x)}" cy="{up(y)}" r="3.5"><title>{x:g}: {y:.4g}</title></circle>'
            for x, y in thinned(line.points)
            if math.isfinite(y)
        ]
    return "".join(drawn)


def _legend(series: Sequence[Series]) -> str:
    """What each colour is, if there are several."""
    samples = {
        "line": '<line x1="0" x2="22" y1="5" y2="5"/>',
        "circles": '<line x1="0" x2="22" y1="5" y2="5"/><circle cx="11" cy="5" r="3.5"/>',
        "dashed": '<line class="dashed" x1="0" x2="22" y1="5" y2="5"/>',
    }
    if len(series) < 2:
        return ""
    return "".join(
        f' <span><svg viewBox="0 0 22 10" aria-hidden="true"><g class="{colour}">'
        f"{samples[line.drawn]}</g></svg>{html.escape(line.name)}</span>"
        for colour, line in zip(COLOURS, series, strict=False)
    )


def _described(line: Series) -> str:
    """A series in words, for those who do not see it."""
    finite = [point for point in line.points if math.isfinite(point[1])]
    if not finite:
        return f"{line.name} has no finite value"
    values = [y for _, y in finite]
    return (
        f"{line.name} from {finite[0][1]:.4g} to {finite[-1][1]:.4g}, "
        f"between {min(values):.4g} and {max(values):.4g}"
    )
