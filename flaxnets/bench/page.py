"""The benchmark as one page that fetches nothing."""

import html
from collections.abc import Iterable

from flaxnets.bench.result import COLUMNS, LEFT, OURS, Result, cells

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #d0d7de; padding: .25rem .6rem; text-align: right }
.left { text-align: left }
.ours { font-weight: 600 }
.scroll { overflow-x: auto }
dl { display: grid; gap: .1rem 1rem; grid-template-columns: max-content 1fr }
dd { margin: 0 }
"""


def render(result: Result) -> str:
    """The page: every row, the figures under the table, the machine.

    >>> "a &lt; b" in render(Result({"cpu": "a < b"}))
    True
    """
    rows = "\n".join(
        f"<tr{' class=ours' if row.contender == OURS else ''}>{_cells('td', cells(row))}</tr>"
        for row in result.rows
    )
    facts = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in result.machine.items()
    )
    said = "".join(f"<p>{html.escape(line)}</p>" for line in result.summary())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>flaxnets: training speed</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{STYLE}</style></head><body>
<h1>Time of a training step</h1>
<p>Medians of interleaved rounds, every contender in a process of its own. A ratio above 1 is
faster than torch eager; the spread is the distance between the quartiles.</p>
{said}
<div class="scroll"><table><thead><tr>{_cells("th", COLUMNS)}</tr></thead>
<tbody>
{rows}
</tbody></table></div>
<h2>Machine</h2>
<dl>{facts}</dl>
</body></html>
"""


def _cells(tag: str, texts: Iterable[str]) -> str:
    kinds = ["left" if column in LEFT else "right" for column in COLUMNS]
    return "".join(
        f'<{tag} class="{kind}">{html.escape(text)}</{tag}>'
        for kind, text in zip(kinds, texts, strict=True)
    )
