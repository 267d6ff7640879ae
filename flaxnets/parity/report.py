"""What a run of the suite found, as rows, JSON, text and one HTML page."""

import html
import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from string import Template

from rich.table import Table

PACKAGES = ("flaxnets", "jax", "jaxlib", "flax", "optax", "torch", "numpy")


class ParityError(AssertionError):
    """Two models are not the same function."""


@dataclass(frozen=True)
class Statistics:
    """An array in four numbers."""

    mean: float
    std: float
    min: float
    max: float


@dataclass(frozen=True)
class Compared:
    """One array of both sides; statistics of a side that lacks it are None."""

    name: str
    error: float
    torch: Statistics | None
    flax: Statistics | None


@dataclass(frozen=True)
class Row:
    """One check of one variant.

    Attributes:
        architecture: whose twins were checked.
        variant: of the architecture.
        check: from `CHECKS`.
        passed: whether the error is within the bound.
        error: the largest.
        bound: that it is judged by.
        worst: the array that has it.
        seconds: that the check took.
        place: of a failed check: the first submodule in data-flow order, gradient or optimizer
            slot that differs.
        cause: the likely one, from the known differences between the frameworks.
        arrays: the worst few, worst first.
        layers: the error of every submodule's output in data-flow order (`intermediates`).
    """

    architecture: str
    variant: str
    check: str
    passed: bool
    error: float
    bound: float
    worst: str
    seconds: float
    place: str = ""
    cause: str = ""
    arrays: tuple[Compared, ...] = ()
    layers: tuple[tuple[str, float], ...] = ()


class Report:
    """The rows of a run.

    >>> Report([Row("a", "tiny", "forward", False, 1.0, 0.1, "fc1", 0.0)]).passed
    False
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)

    @property
    def passed(self) -> bool:
        """Whether there is a row and every row has passed."""
        return bool(self.rows) and all(row.passed for row in self.rows)

    def raise_if_failed(self) -> None:
        """Raise `ParityError`, one line for every check that failed."""
        failed = [row for row in self.rows if not row.passed]
        if failed or not self.rows:
            lines = map(_line, failed)
            raise ParityError("\n".join(lines) or "no check was run")

    def to_json(self) -> str:
        """`{"results": [...], "versions": {...}}`; an infinite error is null."""
        results = []
        for row in self.rows:
            fields = asdict(row)
            fields["error"] = row.error if math.isfinite(row.error) else None
            results.append(fields)
        return json.dumps({"results": results, "versions": versions()}, indent=2)

    def to_table(self) -> Table:
        """For the terminal."""
        table = Table(title="parity")
        for column in ("architecture", "variant", "check", "error", "bound", "worst", ""):
            table.add_column(column, justify="right" if column in ("error", "bound") else "left")
        for row in self.rows:
            mark = "[green]pass[/]" if row.passed else "[bold red]FAIL[/]"
            numbers = f"{row.error:.1e}", f"{row.bound:.1e}"
            table.add_row(row.architecture, row.variant, row.check, *numbers, row.worst, mark)
        return table

    def to_html(self, title: str = "parity", before: str = "") -> str:
        """One self-contained page: the matrix of checks, each cell unfolding to its worst place.

        Args:
            title: of the page.
            before: HTML in front of the matrix.
        """
        checks = list(dict.fromkeys(row.check for row in self.rows))
        pairs = list(dict.fromkeys((row.architecture, row.variant) for row in self.rows))
        cells = {(row.architecture, row.variant, row.check): row for row in self.rows}
        lines = []
        for pair in pairs:
            name = " ".join(map(html.escape, pair))
            body = "".join(_cell(cells.get((*pair, check))) for check in checks)
            lines.append(f"<tr><th scope=row>{name}</th>{body}</tr>")
        failed = sum(not row.passed for row in self.rows)
        return PAGE.substitute(
            title=html.escape(title),
            before=before,
            verdict=f"{len(self.rows) - failed} of {len(self.rows)} checks passed",
            head="".join(f"<th scope=col>{html.escape(check)}</th>" for check in checks),
            rows="\n".join(lines),
            versions=", ".join(f"{name} {number}" for name, number in versions().items()),
        )


def _line(row: Row) -> str:
    """A failed check in one line: where, how far, why."""
    where = row.place or row.worst
    why = f"; {row.cause}" if row.cause else ""
    return (
        f"{row.architecture} ({row.variant}) {row.check}: "
        f"error {row.error:.3g} above {row.bound:.3g} at {where}{why}"
    )


def versions() -> dict[str, str]:
    """What the run ran on."""
    found = {name: _version(name) for name in PACKAGES}
    return {**found, "python": platform.python_version(), "machine": platform.machine()}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _cell(row: Row | None) -> str:
    if row is None:
        return "<td></td>"
    mark, kind = ("✓", "pass") if row.passed else ("✗", "fail")
    return (
        f"<td class={kind}><details><summary>{mark} {row.error:.1e}</summary>"
        f"bound {row.bound:.1e}<br>worst: {html.escape(row.worst)}<br>{row.seconds:.1f} s"
        "</details></td>"
    )


PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>flaxnets: $title</title>
<style>
:root { color-scheme: light dark; --pass: #e3f4e3; --fail: #f9d5d0; --line: #8886; }
@media (prefers-color-scheme: dark) { :root { --pass: #173a1f; --fail: #5c1a14; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; }
h1, h2, p, footer { max-width: 60rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { border: 1px solid var(--line); padding: .25rem .5rem; text-align: left; }
th, td { vertical-align: top; }
td.pass { background: var(--pass); }
td.fail { background: var(--fail); font-weight: bold; outline: 2px solid; }
summary { cursor: pointer; white-space: nowrap; font-variant-numeric: tabular-nums; }
img { max-width: 100%; background: #fff; border-radius: 4px; }
footer { margin-top: 2rem; opacity: .75; }
</style>
</head>
<body>
<h1>$title</h1>
$before
<h2>Parity of the Flax and the torch twin</h2>
<p>$verdict. A cell shows the error; a click shows the bound and where the error is worst.</p>
<div class="wide"><table>
<thead><tr><th></th>$head</tr></thead>
<tbody>
$rows
</tbody>
</table></div>
<footer>$versions</footer>
</body>
</html>
""")
