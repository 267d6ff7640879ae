"""The page in a browser: the matrix is there, cells unfold, nothing is complained about."""

import dataclasses
import re

from flaxnets.parity import Report, Row
from flaxnets.parity.page import depth_plot
from flaxnets.parity.row import Compared, Statistics

PASS = Row("lenet", "tiny", "forward", True, 1e-16, 1e-10, "output", 0.1)
FAIL = Row(
    "lenet",
    "tiny",
    "intermediates",
    False,
    2e-6,
    1e-10,
    "fc2",
    0.2,
    place="fc1 <b>&",
    cause="tanh GELU",
    arrays=(Compared("fc1", 2e-6, Statistics(0.25, 1, -3, 3), None),),
    layers=(("conv1", 0.0), ("fc1", 2e-6), ("fc2", float("inf"))),
)
OTHER = dataclasses.replace(PASS, architecture="my model", variant="a", check="gradients")
REPORT = Report([PASS, FAIL, OTHER])
PAGE = REPORT.to_html()


def _unfolded(dom):
    """The names of what is unfolded in a page."""
    rows = re.findall(r'<tr class="unfolded" id="([^"]*)"([^>]*)>', dom)
    return [name.removesuffix(":unfolded") for name, rest in rows if "hidden" not in rest]


def test_matrix(browse):
    """A row for every pair, a column for every check, a mark in every cell; all folded up."""
    dom = browse(PAGE)
    heads = re.findall(r'<th scope="col" title="[^"]*">([^<]*(?:<wbr>)?[^<]*)</th>', dom)
    assert heads == ["forward", "intermediates", "gradients"]
    names = re.findall(r'class="name"><b>(.*?)</b> <span>(.*?)</span>', dom)
    assert names == [("lenet", "tiny"), ("my model", "a")]
    assert dom.count("✓ 1.0e-16 <small>≤ 1.0e-10</small>") == 2
    assert dom.count("✗ 2.0e-06 <small>&gt; 1.0e-10</small>") == 1
    assert dom.count("not run") == 3
    assert _unfolded(dom) == []


def test_fragment(browse):
    """A link to a cell unfolds it."""
    dom = browse(PAGE, "my-model.a.gradients")
    assert _unfolded(dom) == ["my-model.a.gradients"]
    assert dom.count('aria-expanded="true" aria-controls') == 1
    assert _unfolded(browse(PAGE, "no.such.cell")) == []


def test_failure_list(browse):
    """The list of failures links to their cells, and does so again once one is folded up."""
    script = """
        document.querySelector(".unfolded:not([hidden]) .close").click();
        document.title = document.querySelectorAll(".unfolded:not([hidden])").length;
        document.querySelector(".failures a").click();
    """
    dom = browse(PAGE, "lenet.tiny.intermediates", script)
    assert "<title>0</title>" in dom
    assert _unfolded(dom) == ["lenet.tiny.intermediates"]


def test_click_and_keys(browse):
    """A click unfolds a cell and folds up its neighbour; arrows move, Escape folds up."""
    script = """
        const [first, second] = document.querySelectorAll("button[aria-controls]");
        first.click();
        first.focus();
        const press = (key) => document.activeElement.dispatchEvent(
            new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
        press("ArrowRight");
        document.title = document.activeElement.id;
        document.activeElement.click();
    """
    dom = browse(PAGE, script=script)
    assert "<title>lenet.tiny.intermediates</title>" in dom
    assert _unfolded(dom) == ["lenet.tiny.intermediates"]
    assert _unfolded(browse(PAGE, script=f"{script} press('Escape');")) == []
    close = "document.querySelector('.unfolded:not([hidden]) .close').click();"
    assert _unfolded(browse(PAGE, script=f"{script} {close}")) == []


def test_only_failures(browse):
    """The box hides the rows without a failure, and is left out where there is none."""
    script = """
        document.getElementById("only").click();
        document.title = [...document.querySelectorAll("tr.good, tr.bad")]
            .map((row) => getComputedStyle(row).display).join();
    """
    assert "<title>table-row,none</title>" in browse(PAGE, script=script)
    assert 'id="only"' not in Report([PASS]).to_html()


def test_content():
    """What a failed check says stands in its cell: place, cause, both sides, error by depth."""
    page = REPORT.to_html("a < b", before="<p>before</p>")
    assert "<title>flaxnets: a &lt; b</title>" in page
    assert "<p>before</p>" in page
    assert "2 of 3 checks passed" in page
    assert '<a href="#lenet.tiny.intermediates">lenet (tiny) intermediates: error 2e-06' in page
    assert "<dt>place</dt><dd>fc1 &lt;b&gt;&amp;</dd>" in page
    assert "<dt>cause</dt><dd>tanh GELU</dd>" in page
    sides = '<td>0.25</td><td>1</td><td>-3</td><td>3</td></tr><tr><th scope="row">Flax</th>'
    assert f'{sides}<td colspan="4">has none</td>' in page
    assert all(f"<dt>{name}</dt>" in page for name in ("platform", "device", "precision"))
    assert "jax 0" in page
    assert "http" not in page, "a self-contained page fetches nothing"
    assert "$" not in page.partition("<script>")[0], "a field of the template is left over"


def test_depth_plot():
    """A cross above the bound and a circle within it; 0 at the bottom, infinity at the top."""
    plot = depth_plot(FAIL.layers, FAIL.bound)
    assert plot.count("<circle") == 1
    assert plot.count("<path") == 2
    assert "2 above the bound 1.0e-10, the first is fc1" in plot
    heights = [float(y) for y in re.findall(r"[\d.]+,([\d.]+)", plot.split("polyline")[1])]
    assert heights[0] > heights[1] > heights[2] == 16
    assert depth_plot((), 1e-10) == ""
    assert depth_plot([("a", 0.0)], 0.0).count("<circle") == 1


def test_failure_is_not_hidden():
    """Of two rows of one name the failed one is shown."""
    for rows in ([PASS, FAIL], [FAIL, PASS]):
        same = [dataclasses.replace(row, check="forward") for row in rows]
        assert "✗ 2.0e-06" in Report(same).to_html()
