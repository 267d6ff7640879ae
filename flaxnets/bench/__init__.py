"""How fast a training step is, beside torch, `torch.compile`, `nnx.jit` and Keras, on the CPU."""

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from flaxnets import specs
from flaxnets.bench import case
from flaxnets.bench.contenders import CONTENDERS
from flaxnets.bench.machine import facts
from flaxnets.bench.process import environment
from flaxnets.bench.result import Overhead, Result
from flaxnets.bench.rounds import time_cases

__all__ = ["bench", "OVERHEAD", "Result"]

OVERHEAD = "overhead"  # stands among the architectures for the cost of `TrainStep` itself


def bench(
    names: Sequence[str] = (),
    contenders: Sequence[str] = (),
    heard: Callable[[str, str], None] = lambda name, doing: None,
) -> Result:
    """Time contenders on networks, in the sizes that `flaxnets.bench.case.of` gives.

    Args:
        names: architectures, and "overhead"; all that are trained if there are none.
        contenders: names from `CONTENDERS`; all if there are none.
        heard: called with the name and what is being done, as it goes on.

    Raises:
        specs.SpecError: an unknown name, or a network that is not trained alone.
    """
    for unknown in set(contenders) - set(CONTENDERS):
        raise specs.SpecError(f"contender {unknown!r} is unknown; use {', '.join(CONTENDERS)}")
    chosen = tuple(names) or (*specs.names(), OVERHEAD)
    for name in chosen:
        if name != OVERHEAD and not case.of(name, "").spec.task:
            raise specs.SpecError(f"{name} has nothing that it is trained towards")
    rows, overhead = [], None
    for name in chosen:
        if name == OVERHEAD:
            heard(name, "both steps")
            overhead = _overhead()
            continue
        cases = [case.of(name, contender) for contender in contenders or CONTENDERS]
        rows += time_cases(cases, heard=functools.partial(heard, name))
    return Result(facts(), rows, overhead)


def _overhead() -> Overhead:
    with tempfile.TemporaryDirectory(prefix="flaxnets-bench-") as cache:
        done = subprocess.run(
            [sys.executable, "-m", "flaxnets.bench.overhead"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=os.environ | environment(Path(cache)),
        )
    return Overhead(**json.loads(done.stdout))
