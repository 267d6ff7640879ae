"""The skeleton of a page that fetches nothing: its style is inside it.

It is light or dark as the reader's system is, fits narrow and wide windows, and prints.
"""

import html
from collections.abc import Mapping, Sequence
from importlib import resources


def document(title: str, body: str, style: str = "", script: str = "") -> str:
    """A whole page.

    Args:
        title: of the window and, as a heading, of the page; plain text.
        body: HTML under the heading.
        style: CSS besides what every page has.
        script: JavaScript that runs when the page is there.

    >>> page = document("a < b", "<p>text</p>")
    >>> "<title>flaxnets: a &lt; b</title>" in page and "<p>text</p>" in page
    True
    """
    shared = resources.files("flaxnets.page").joinpath("page.css").read_text().strip()
    ending = f"<script>\n{script.strip()}\n</script>\n" if script else ""
    name = html.escape(title)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>flaxnets: {name}</title>
<style>
{shared}
{style.strip()}
</style>
</head>
<body>
<h1>{name}</h1>
{body}
{ending}</body>
</html>
"""


def definitions(facts: Mapping[str, str]) -> str:
    """Names and what they stand for, as HTML; both are plain text.

    >>> definitions({"device": "cpu"})
    '<dl><dt>device</dt><dd>cpu</dd></dl>'
    """
    entries = "".join(
        f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in facts.items()
    )
    return f"<dl>{entries}</dl>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as HTML; the first cell of a row is its name, the others are set flush right.

    Args:
        head: the names of the columns; plain text, as all cells are.
        rows: as many cells each.

    >>> table(["check", "took"], [["forward", "1 s"]]).count("<td>")
    1
    """
    names = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in rest)
        + "</tr>\n"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll"><table class="plain"><thead><tr>{names}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>"
    )
