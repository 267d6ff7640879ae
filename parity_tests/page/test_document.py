"""The skeleton: what is text stays text, and what is inside is all there is."""

import re
import tomllib
from pathlib import Path

from flaxnets.page import definitions, document, table

ROOT = Path(__file__).parents[2]


def test_document(browse):
    """Title, body, style and script are in place; nothing is fetched."""
    page = document(
        "a < b", "<p>body</p>", "p { color: red; }", "document.title += ' ' + document.readyState;"
    )
    assert "<title>flaxnets: a &lt; b loading</title>" in browse(page)
    assert "<h1>a &lt; b</h1>\n<p>body</p>" in page
    assert page.index("--ground: #fff") < page.index("p { color: red; }") < page.index("</style>")
    assert "http" not in page, "a self-contained page fetches nothing"
    assert "<script" not in document("a", "")


def test_every_colour_is_dark_too():
    """Each colour of the light page has its counterpart on the dark one."""
    style = document("", "").partition("<style>")[2]
    light, dark = style.split("@media screen and (prefers-color-scheme: dark)")
    light, dark = (set(re.findall(r"(--\w[\w-]*): #", part)) for part in (light, dark))
    assert light == dark
    assert len(light) > 5


def test_text_is_escaped():
    """Names and values are text, not HTML."""
    assert definitions({"<a>": "&"}) == "<dl><dt>&lt;a&gt;</dt><dd>&amp;</dd></dl>"
    cells = table(["<head>"], [["<name>", "<cell>"]])
    assert "<name>" not in cells
    assert '<th scope="col">&lt;head&gt;</th>' in cells
    assert "<td>&lt;cell&gt;</td>" in cells


def test_style_is_packaged():
    """What lies in the packages goes into the wheel with them."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert "flaxnets" in build["targets"]["wheel"]["packages"]
    assert (ROOT / "flaxnets/page/page.css").is_file()
