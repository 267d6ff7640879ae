"""One case of the benchmark, and the process of its own that it runs in.

`python -m flaxnets.bench.case CASE` takes one step and says how much memory that took, then does
what each line on its standard input asks for: "settle" on the contender's forms, and "turn", a
run of some steps of each. It answers in lines of JSON, and ends with its input.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flaxnets import specs
from flaxnets.specs import Spec

if TYPE_CHECKING:
    from flaxnets.bench.contenders import Contender

BATCH = 32
SIZES = {"bert": ("mini", 8)}  # the default, of 110 million weights, takes seconds a step on a CPU
BATCHES = 4  # different ones, which take turns
TURN = 0.3  # seconds


@dataclass(frozen=True)
class Case:
    """One contender on one network.

    Attributes:
        architecture: its name.
        contender: one of `flaxnets.bench.contenders.CONTENDERS`.
        variant: a named size of the architecture.
        batch: examples.
        turn: seconds that a turn lasts, if one dispatch does not last longer.
    """

    architecture: str
    contender: str
    variant: str = "default"
    batch: int = BATCH
    turn: float = TURN

    @property
    def spec(self) -> Spec:
        """What is built."""
        return specs.make(self.architecture, self.variant)


def of(architecture: str, contender: str) -> Case:
    """The case in the size of the benchmark: the default variant, batches of 32, but for `SIZES`.

    >>> of("bert", "flaxnets").variant, of("lenet", "flaxnets").batch
    ('mini', 32)
    """
    variant, batch = SIZES.get(architecture, ("default", BATCH))
    return Case(architecture, contender, variant, batch, TURN)


def child(case: Case, asked: Any, say: Callable[[dict[str, Any]], None]) -> None:
    """Answer requests for a case until they end.

    Args:
        case: what is timed.
        asked: lines, each "settle" or "turn".
        say: is given the answers.
    """
    from flaxnets.bench.contenders import CONTENDERS, UnsuitableError, seconds
    from flaxnets.data import drawn

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


def _steps(form: "Contender", turn: float) -> int:
    """Whole dispatches that fill a turn, all compiled."""
    from flaxnets.bench.contenders import seconds

    form.run(form.steps)
    dispatch = form.steps * seconds(form, form.steps)
    steps = max(1, round(turn / dispatch)) * form.steps
    form.run(steps)
    return steps


def cores() -> int:
    """How many processors this process may use.

    >>> cores() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory() -> int:
    """The most memory, in bytes, that this process has held so far.

    Linux passes `ru_maxrss` on to the processes that a large one starts, but not `VmHWM`.

    >>> peak_memory() > 2**20
    True
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def main(text: str) -> None:
    """Run the case that JSON describes; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    child(Case(**json.loads(text)), sys.stdin, lambda said: print(json.dumps(said), file=answers))


def as_argument(case: Case) -> str:
    """What `main` reads."""
    return json.dumps(asdict(case))


if __name__ == "__main__":
    main(sys.argv[1])
