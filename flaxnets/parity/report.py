"""What a run of the suite found, as rows, JSON, text, JUnit's XML and one HTML page."""

import inspect
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

import jax.numpy as jnp
from rich.markup import escape
from rich.table import Table

from flaxnets.environment import hardware, versions
from flaxnets.parity import page
from flaxnets.parity.checks import CHECKS
from flaxnets.parity.row import Row

PRECISION = (
    "float64, and float32 in the check of that name; matrix products at the highest precision, "
    "TF32 off"
)
UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0


class ParityError(AssertionError):
    """Two models are not the same function."""


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
        """`{"results": [...], "versions": {...}, "run": {...}}`; what is infinite is null."""
        content = {
            "results": [asdict(row) for row in self.rows],
            "versions": versions(),
            "run": {**environment(), "seconds": self.seconds},
        }
        return json.dumps(_finite(content), indent=2, allow_nan=False)

    @property
    def seconds(self) -> float:
        """That all checks took together."""
        return sum(row.seconds for row in self.rows)

    def to_junit(self) -> str:
        """JUnit's XML: a suite for every architecture and variant, a case for every check."""
        root = ElementTree.Element("testsuites", _counts(self.rows, "flaxnets parity"))
        for pair in dict.fromkeys((row.architecture, row.variant) for row in self.rows):
            name = "-".join(pair)
            rows = [row for row in self.rows if (row.architecture, row.variant) == pair]
            suite = ElementTree.SubElement(root, "testsuite", _counts(rows, name))
            for row in rows:
                case = ElementTree.SubElement(
                    suite,
                    "testcase",
                    {"classname": name, "name": row.check, "time": f"{row.seconds:.3f}"},
                )
                if not row.passed:
                    message = UNPRINTABLE.sub("?", _line(row))
                    failure = ElementTree.SubElement(
                        case, "failure", {"message": message, "type": ParityError.__name__}
                    )
                    failure.text = message
        ElementTree.indent(root)
        return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"

    def to_table(self) -> Table:
        """For the terminal."""
        table = Table(title="parity")
        for column in ("architecture", "variant", "check", "error", "bound", "worst", ""):
            table.add_column(column, justify="right" if column in ("error", "bound") else "left")
        for row in self.rows:
            mark = "[green]pass[/]" if row.passed else "[bold red]FAIL[/]"
            numbers = f"{row.error:.1e}", f"{row.bound:.1e}"
            table.add_row(
                row.architecture, row.variant, row.check, *numbers, escape(row.worst), mark
            )
        return table

    def slowest(self) -> Table:
        """The checks that took longest, for the terminal."""
        table = Table(title=f"slowest checks of {self.seconds:.1f} s")
        for column in ("architecture", "variant", "check", "seconds"):
            table.add_column(column, justify="right" if column == "seconds" else "left")
        for row in page.slowest(self.rows):
            table.add_row(row.architecture, row.variant, row.check, f"{row.seconds:.1f}")
        return table

    def to_html(self, title: str = "parity", before: str = "") -> str:
        """One self-contained page: the matrix of checks, each cell unfolding to its details.

        Args:
            title: of the page.
            before: HTML in front of the matrix.
        """
        explained = {
            name: (inspect.getdoc(check) or "").partition("\n")[0] for name, check in CHECKS.items()
        }
        numbers = ", ".join(f"{name} {number}" for name, number in versions().items())
        facts = {**environment(), "versions": numbers}
        return page.render(self.rows, _line, facts, title, before, explained)


def _line(row: Row) -> str:
    """A failed check in one line: where, how far, why."""
    where = row.place or row.worst
    why = f"; {row.cause}" if row.cause else ""
    return (
        f"{row.architecture} ({row.variant}) {row.check}: "
        f"error {row.error:.3g} above {row.bound:.3g} at {where}{why}"
    )


def environment() -> dict[str, str]:
    """Where the run ran, and how exactly."""
    device: Any = jnp.zeros(()).device  # as `device.on` has chosen
    found = hardware(device)
    return {
        "platform": found["platform"],
        "device": found["cpu" if found["platform"] == "cpu" else "devices"],
        "precision": PRECISION,
    }


def _counts(rows: list[Row], name: str) -> dict[str, str]:
    return {
        "name": name,
        "tests": str(len(rows)),
        "failures": str(sum(not row.passed for row in rows)),
        "time": f"{sum(row.seconds for row in rows):.3f}",
    }


def _finite(value: Any) -> Any:
    """JSON's view of a value: strict JSON has neither infinity nor NaN."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
