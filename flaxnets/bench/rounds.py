"""The benchmark: contenders take turns over several rounds, each in its own process."""

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from flaxnets.bench.case import Case
from flaxnets.bench.process import CaseError, CaseProcess
from flaxnets.bench.result import TORCH, Row, Timed

ROUNDS = 9


def time_cases(
    cases: Sequence[Case],
    rounds: int | None = None,
    heard: Callable[[str], None] = lambda doing: None,
) -> list[Row]:
    """A row for each case, of one network, in which a contender that failed says why.

    Every contender is started twice, with an empty cache of its compiler and with the filled
    one; the second process stays, and takes a turn in every round. Waiting processes sleep.

    Args:
        cases: one a contender.
        rounds: turns of each, of which the median counts; `ROUNDS` if None.
        heard: called with what is being done.
    """
    rounds = rounds or ROUNDS
    rows: list[Row] = []
    started: list[tuple[Row, CaseProcess]] = []
    with contextlib.ExitStack() as stack:
        for case in cases:
            row = Row(case.architecture, case.variant, case.batch, case.contender)
            rows.append(row)
            cache = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flaxnets-bench-")))
            try:
                heard(f"{case.contender}: cold start")
                with CaseProcess(case, cache) as cold:
                    row.first_step_cold_s = cold.first_step
                heard(f"{case.contender}: warm start")
                warm = stack.enter_context(CaseProcess(case, cache))
                row.first_step_warm_s, row.peak_memory_mb = warm.first_step, warm.memory_mb
                row.timed = [Timed(*form) for form in warm.ask("settle")["forms"]]
            except CaseError as error:
                row.reason = str(error)
            else:
                started.append((row, warm))
        for number in range(rounds):
            heard(f"round {number + 1} of {rounds}")
            for row, process in started:
                if not row.reason:
                    _turn(row, process)
    return fill(rows)


def _turn(row: Row, process: CaseProcess) -> None:
    try:
        for timed, seconds in zip(row.timed, process.ask("turn")["seconds"], strict=True):
            timed.seconds.append(seconds)
    except CaseError as error:
        row.reason = str(error)


def fill(rows: Sequence[Row]) -> list[Row]:
    """Rows with the figures of their fastest form: median, spread, and ratio to torch's.

    The spread is the distance between the quartiles, as a share of the median.
    """
    for row in rows:
        if row.reason:
            continue
        timed = min(row.timed, key=lambda timed: statistics.median(timed.seconds))
        seconds = statistics.median(timed.seconds)
        row.form, row.steps_per_dispatch = timed.form, timed.steps_per_dispatch
        row.step_ms = 1e3 * seconds
        row.spread = _between_quartiles(timed.seconds) / seconds
        row.examples_per_s = row.batch / seconds
    torch = next((row.step_ms for row in rows if row.contender == TORCH), None)
    for row in rows:
        if torch is not None and row.step_ms is not None:
            row.ratio_to_torch_eager = torch / row.step_ms
    return list(rows)


def _between_quartiles(values: Sequence[float]) -> float:
    if len(values) == 1:
        return 0.0
    low, _, high = statistics.quantiles(values, method="inclusive")
    return high - low
