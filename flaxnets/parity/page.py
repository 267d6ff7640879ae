"""The report as one page that fetches nothing: a matrix of checks whose cells unfold.

What a colour says, a mark and a word say too. Without JavaScript every cell is unfolded.
"""

import html
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

from flaxnets.page import definitions, document, table

if TYPE_CHECKING:
    from flaxnets.parity.row import Compared, Row, Statistics

SLOWEST = 10  # checks that a report lists with their duration

# The plot of errors by depth, in pixels.
WIDTH = 520  # of the axis, where the layers fit
STEP = 22  # from layer to layer, at the least
LEFT, RIGHT, TOP = 64, 24, 16  # margins
HEIGHT = 200  # of the axis
LETTER = 5.5  # of a layer's name under the axis, measured downwards
MOST_NAMES = 60  # of layers; of more, every second, third, ... is written
MOST_LETTERS = 22  # of a name
MOST_TICKS = 10


def slowest(rows: Sequence["Row"], count: int = SLOWEST) -> list["Row"]:
    """The rows that took longest, longest first."""
    return sorted(rows, key=lambda row: -row.seconds)[:count]


def render(
    rows: Sequence["Row"],
    line: Callable[["Row"], str],
    facts: Mapping[str, str],
    title: str,
    before: str,
    explained: Mapping[str, str],
) -> str:
    """The page.

    Args:
        rows: of the report.
        line: a failed row in one line.
        facts: about the run: device, precision, versions.
        title: of the page.
        before: HTML in front of the report.
        explained: what each check compares.
    """
    checks = list(dict.fromkeys(row.check for row in rows))
    pairs = list(dict.fromkeys((row.architecture, row.variant) for row in rows))
    cells: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = row.architecture, row.variant, row.check
        if key not in cells or cells[key].passed:  # of two of one name, the failed one is shown
            cells[key] = row
    failed = [row for row in rows if not row.passed]
    passed = bool(rows) and not failed
    body = []
    for pair in pairs:
        found = [cells.get((*pair, check)) for check in checks]
        body.append(_matrix_row(pair, found))
        body += [_unfolded(row, len(checks) + 1) for row in found if row]
    content = BODY.substitute(
        before=before,
        verdict="pass" if passed else "fail",
        word="PASS" if passed else "FAIL",
        count=f"{len(rows) - len(failed)} of {len(rows)} checks passed",
        failures=_failures(failed, line),
        filter=FILTER if failed else "",
        head="".join(_head(check, explained.get(check, "")) for check in checks),
        rows="\n".join(body),
        slowest=_slowest(rows),
        explained=definitions({check: explained.get(check, "") for check in checks}),
        facts=definitions({**facts, "duration": f"{sum(row.seconds for row in rows):.1f} s"}),
    )
    return document(title, content, _resource("page.css"), _resource("page.js"))


def _resource(name: str) -> str:
    return resources.files("flaxnets.parity").joinpath(name).read_text()


def _anchor(row: "Row") -> str:
    return re.sub(r"[^\w.-]+", "-", f"{row.architecture}.{row.variant}.{row.check}")


def _panel(row: "Row") -> str:
    return f"{_anchor(row)}:unfolded"


def _head(check: str, explained: str) -> str:
    words = html.escape(check).replace("_", "_<wbr>")
    return f'<th scope="col" title="{html.escape(explained)}">{words}</th>'


def _matrix_row(pair: tuple[str, str], found: Sequence["Row | None"]) -> str:
    architecture, variant = map(html.escape, pair)
    kind = "bad" if any(row and not row.passed for row in found) else "good"
    name = f"<b>{architecture}</b> <span>{variant}</span>"
    body = "".join(map(_cell, found))
    return f'<tr class="{kind}"><th scope="row" class="name">{name}</th>{body}</tr>'


def _cell(row: "Row | None") -> str:
    if row is None:
        return '<td class="none" title="not run">-</td>'
    kind, word, mark, sign = (
        ("pass", "passed", "✓", "≤") if row.passed else ("fail", "failed", "✗", ">")
    )
    return (
        f'<td class="{kind}"><button type="button" id="{_anchor(row)}" aria-expanded="false" '
        f'aria-controls="{_panel(row)}" title="{word}">'
        f"{mark} {_number(row.error)} <small>{sign} {_number(row.bound)}</small></button></td>"
    )


def _number(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def _unfolded(row: "Row", columns: int) -> str:
    """The row of the table that a cell unfolds."""
    name = html.escape(f"{row.architecture} ({row.variant}) {row.check}")
    facts = {
        "error": f"{row.error:.3g} {'within' if row.passed else 'above'} the bound {row.bound:.3g}",
        "place": row.place,
        "cause": row.cause,
        "worst": row.worst,
        "took": f"{row.seconds:.2f} s",
    }
    return (
        f'<tr class="unfolded" id="{_panel(row)}" hidden><td colspan="{columns}">'
        f'<section class="{"pass" if row.passed else "fail"}" aria-label="{name}">'
        f'<h3>{name} <button type="button" class="close">close</button></h3>'
        f"{definitions({key: value for key, value in facts.items() if value})}"
        f"{_arrays(row.arrays)}{depth_plot(row.layers, row.bound)}</section></td></tr>"
    )


def _failures(failed: Sequence["Row"], line: Callable[["Row"], str]) -> str:
    entries = "".join(
        f'<li><a href="#{_anchor(row)}">{html.escape(line(row))}</a></li>' for row in failed
    )
    return f'<ul class="failures">{entries}</ul>' if failed else ""


def _slowest(rows: Sequence["Row"]) -> str:
    return table(
        ["check", "took"],
        [
            [f"{row.architecture} ({row.variant}) {row.check}", f"{row.seconds:.1f} s"]
            for row in slowest(rows)
        ],
    )


def _arrays(arrays: Iterable["Compared"]) -> str:
    """The worst arrays, the numbers of both sides under each other."""
    body = "".join(
        f'<tr><th scope="rowgroup" rowspan="2">{html.escape(array.name)}</th>'
        f'<td rowspan="2">{array.error:.2e}</td>{_side("torch", array.torch)}</tr>'
        f"<tr>{_side('Flax', array.flax)}</tr>"
        for array in arrays
    )
    if not body:
        return ""
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("array", "error", "side", "mean", "std", "min", "max")
    )
    return (
        '<div class="scroll"><table class="arrays"><caption>worst arrays</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _side(name: str, statistics: "Statistics | None") -> str:
    if statistics is None:
        return f'<th scope="row">{name}</th><td colspan="4">has none</td>'
    numbers = statistics.mean, statistics.std, statistics.min, statistics.max
    body = "".join(f"<td>{number:.6g}</td>" for number in numbers)
    return f'<th scope="row">{name}</th>{body}'


def depth_plot(layers: Sequence[tuple[str, float]], bound: float) -> str:
    """The error of each layer's output in data-flow order, on a logarithmic axis, as SVG.

    Errors above the bound are crosses, those within it circles; an error of 0 lies on the
    lower edge of the plot and an infinite one on the upper.

    >>> depth_plot([("conv1", 1e-16), ("conv2", 1e-3)], 1e-10).count("<title>")
    2
    """
    if not layers:
        return ""
    logs = [math.log10(x) for _, x in [*layers, ("", bound)] if x > 0 and math.isfinite(x)] or [0]
    low, high = math.floor(min(logs)) - 1, math.ceil(max(logs)) + 2
    step = max(STEP, min(2 * STEP, WIDTH // len(layers)))
    width = LEFT + max(WIDTH // 2, step * len(layers)) + RIGHT

    def y(error: float) -> float:
        part = math.log10(error) if 0 < error < math.inf else (low if error == 0 else high)
        return round(TOP + HEIGHT * (high - part) / (high - low), 1)

    points = [(LEFT + step * (index + 0.5), y(error)) for index, (_, error) in enumerate(layers)]
    above = [name for name, error in layers if not error <= bound]
    described = (
        f"error by depth of {len(layers)} layers: {len(above)} above the bound {bound:.1e}"
        + (f", the first is {above[0]}" if above else "")
    )
    drawn = [_axis(low, high, width, y)]
    if bound > 0:
        at, right = y(bound), width - RIGHT
        drawn.append(
            f'<line class="bound" x1="{LEFT}" x2="{right}" y1="{at}" y2="{at}"/>'
            f'<text class="bound" x="{LEFT + 6}" y="{at - 5}">bound {bound:.1e}</text>'
        )
    line = " ".join(f"{x},{height}" for x, height in points)
    drawn.append(f'<polyline points="{line}"/>')
    every = math.ceil(len(layers) / MOST_NAMES)
    for index, ((name, error), (x, height)) in enumerate(zip(layers, points, strict=True)):
        mark = (
            f'<circle cx="{x}" cy="{height}" r="4"/>'
            if error <= bound
            else f'<path d="M{x - 5} {height - 5}l10 10m0 -10l-10 10"/>'
        )
        title = html.escape(f"{name}: {error:.2e}")
        drawn.append(f'<g class="mark"><title>{title}</title>{mark}</g>')
        if index % every == 0:
            foot = TOP + HEIGHT + 12
            drawn.append(
                f'<text transform="translate({x + 3} {foot}) rotate(-60)" text-anchor="end">'
                f"{html.escape(_shortened(name))}</text>"
            )
    names = max(len(_shortened(name)) for name, _ in layers)
    height = TOP + HEIGHT + 24 + round(LETTER * names)
    return (
        '<figure class="scroll" tabindex="0"><figcaption>error by depth</figcaption>'
        f'<svg role="img" aria-label="{html.escape(described)}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{"".join(drawn)}</svg></figure>'
    )


def _axis(low: int, high: int, width: int, y: Callable[[float], float]) -> str:
    """Lines at powers of ten; the lowest stands for 0, the highest for infinity."""
    every = math.ceil((high - low) / MOST_TICKS)
    labels = {low: "0", high: "∞"} | {
        power: f"1e{power}" for power in range(low + 1, high) if power % every == 0
    }
    return "".join(
        f'<line x1="{LEFT}" x2="{width - RIGHT}" y1="{height}" y2="{height}"/>'
        f'<text x="{LEFT - 6}" y="{height + 4}" text-anchor="end">{label}</text>'
        for power, label in labels.items()
        for height in [round(TOP + HEIGHT * (high - power) / (high - low), 1)]
    )


def _shortened(name: str) -> str:
    """A submodule's name without its middle, and without the number of its only call."""
    name = name.removesuffix("#1")
    return name if len(name) <= MOST_LETTERS else f"{name[:8]}…{name[9 - MOST_LETTERS :]}"


FILTER = '<p><label><input type="checkbox" id="only"> only rows with a failed check</label></p>'
BODY = Template("""$before
<h2>Parity of the Flax and the torch twin</h2>
<p class="verdict $verdict"><b>$word</b> $count.</p>
$failures
<p>A cell shows a check's largest error; choose it to see the bound, the place, the cause and the
arrays. The arrow keys move between cells, Escape folds one up.</p>
$filter
<div class="matrix" role="region" aria-label="matrix of checks" tabindex="0"><table>
<thead class="heads"><tr><th scope="col" class="name">architecture</th>$head</tr></thead>
<tbody>
$rows
</tbody>
</table></div>
<h2>Run</h2>
$facts
<details><summary>the slowest checks</summary>$slowest</details>
<details><summary>what the checks compare</summary>$explained</details>""")
