"""The process that a case runs in: `python -m flaxnets.bench.child CASE`.

It takes one step and says how much memory that took, then does what each line on its standard
input asks for: "settle" on the contender's forms, and "turn", a run of some steps of each. It
answers in lines of JSON, and ends with its input.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from flaxnets.bench import case
from flaxnets.bench.contenders import CONTENDERS, Contender, UnsuitableError, seconds
from flaxnets.bench.machine import peak_memory
from flaxnets.data import drawn

BATCHES = 4  # different ones, which take turns


def answer(case: case.Case, asked: Iterable[str], say: Callable[[dict[str, Any]], None]) -> None:
    """Answer requests for a case until they end.

    Args:
        case: what is timed.
        asked: lines, each "settle" or "turn".
        say: is given the answers.
    """
    try:
        batches = [drawn.batch(case.spec, case.batch, seed) for seed in range(BATCHES)]
        contender = CONTENDERS[case.contender](case.spec, batches)
        contender.run(1)
        say({"memory_mb": peak_memory() / 2**20})
        forms = [contender]
        steps: list[int] = []
        for line in asked:
            if line.strip() == "settle":
                forms = contender.settled() if contender.settled else forms
                steps = [_steps(form, case.turn) for form in forms]
                say({"forms": [[form.form, form.steps] for form in forms]})
            else:
                timed = zip(forms, steps, strict=True)
                say({"seconds": [seconds(form, count) for form, count in timed]})
    except UnsuitableError as error:
        say({"reason": str(error)})
    except ModuleNotFoundError as error:
        say({"reason": f"{error.name} is not installed"})
    except Exception as error:  # whatever a contender may raise: it is a row, not a crash
        lines = str(error).strip().splitlines() or [""]
        say({"reason": f"{type(error).__name__}: {lines[0]}"})


def _steps(form: Contender, turn: float) -> int:
    """Whole dispatches that fill a turn, all compiled."""
    form.run(form.steps)
    dispatch = form.steps * seconds(form, form.steps)
    steps = max(1, round(turn / dispatch)) * form.steps
    form.run(steps)
    return steps


def main(text: str) -> None:
    """Run the case that JSON describes; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    answer(case.from_json(text), sys.stdin, lambda said: print(json.dumps(said), file=answers))


if __name__ == "__main__":
    main(sys.argv[1])
