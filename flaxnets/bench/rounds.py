"""The benchmark: contenders take turns over several rounds, each in its own process."""

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flaxnets.bench.case import Case
from flaxnets.bench.process import CaseError, CaseProcess
from flaxnets.bench.result import TORCH, Row

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
    rows: dict[str, Row] = {}
    started: dict[str, CaseProcess] = {}
    times: dict[str, list[float]] = {case.contender: [] for case in cases}
    with contextlib.ExitStack() as stack:
        for case in cases:
            rows[case.contender] = Row(case.architecture, case.variant, case.batch, case.contender)
            cache = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flaxnets-bench-")))
            try:
                heard(f"{case.contender}: cold start")
                with CaseProcess(case, cache) as cold:
                    rows[case.contender].first_step_cold_s = cold.first_step
                heard(f"{case.contender}: warm start")
                started[case.contender] = stack.enter_context(CaseProcess(case, cache))
                rows[case.contender].first_step_warm_s = started[case.contender].first_step
                answer = started[case.contender].ask("settle")
                rows[case.contender].form = answer["form"]
                rows[case.contender].steps_per_dispatch = answer["steps_per_dispatch"]
            except CaseError as error:
                rows[case.contender].reason = str(error)
        for number in range(rounds):
            heard(f"round {number + 1} of {rounds}")
            for contender, process in started.items():
                row = rows[contender]
                if row.reason:
                    continue
                try:
                    answer = process.ask("turn")
                    times[contender].append(answer["seconds"])
                    row.peak_memory_mb = answer["memory_mb"]
                except CaseError as error:
                    row.reason = str(error)
    return fill(rows, times)


def fill(rows: Mapping[str, Row], times: Mapping[str, Sequence[float]]) -> list[Row]:
    """Medians, spreads and ratios from the seconds of a step, by contender.

    The spread is the distance between the quartiles, as a share of the median.
    """
    for contender, row in rows.items():
        if row.reason:
            continue
        found = times[contender]
        seconds = statistics.median(found)
        low, _, high = (
            statistics.quantiles(found, method="inclusive") if len(found) > 1 else [0.0] * 3
        )
        row.step_ms = 1e3 * seconds
        row.spread = (high - low) / seconds
        row.examples_per_s = row.batch / seconds
    torch = rows[TORCH].step_ms if TORCH in rows else None
    for row in rows.values():
        if torch is not None and row.step_ms is not None:
            row.ratio_to_torch_eager = torch / row.step_ms
    return list(rows.values())
