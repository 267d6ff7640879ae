"""The benchmark as one page: every row, the figures under the table, the machine."""

import html

from flaxnets.bench.result import COLUMNS, Result, cells
from flaxnets.page import definitions, document, table

EXPLAINED = (
    "Medians of rounds in which the contenders take turns, each in a process of its own. A ratio "
    "above 1 is faster than torch eager; the spread is the distance between the quartiles, as a "
    "share of the median; first steps are counted from the start of the process, with an empty "
    "and with a filled cache of compiled programs."
)


def render(result: Result) -> str:
    """The page.

    >>> "a &lt; b" in render(Result({"cpu": "a < b"}))
    True
    """
    said = [*result.summary(), EXPLAINED]
    body = [
        *[f"<p>{html.escape(line)}</p>" for line in said],
        table(COLUMNS, [cells(row) for row in result.rows]),
        "<h2>Machine</h2>",
        definitions(result.machine),
    ]
    return document("time of a training step", "\n".join(body))
