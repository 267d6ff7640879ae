"""The checks on any pair, with the likely cause of each that fails."""

import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
import torch
from flax import nnx

from flaxnets.parity.checks import CHECKS, Finding, Subject
from flaxnets.parity.diagnosis.explanation import explain
from flaxnets.parity.diagnosis.trace import Fault
from flaxnets.parity.pair import Pair
from flaxnets.parity.report import Report
from flaxnets.parity.row import Row
from flaxnets.parity.trajectory import METHODS, Task, any_task
from flaxnets.specs import Input


def check(
    flax_model: nnx.Module | Callable[[int], nnx.Module],
    torch_model: torch.nn.Module | Callable[[int], torch.nn.Module],
    inputs: Sequence[Input | np.ndarray],
    checks: Sequence[str] | None = None,
    *,
    name: str = "model",
    variant: str = "default",
    task: Task | None = None,
    methods: Sequence[str] = ("adam",),
    seed: int = 0,
) -> Report:
    """Prove, or disprove, that a Flax and a torch model are the same function.

    Works for any pair whose layers the bridge has rules for (`bridge.register`).

    Args:
        flax_model: an `nnx.Module`, or a function from a seed to a fresh one, which makes
            the check of the initialisation sharper.
        torch_model: a `torch.nn.Module`, or a function from a seed to a fresh one.
        inputs: what the models eat, in order: `flaxnets.specs.Input` descriptions, or arrays
            in Flax's layout.
        checks: names from `CHECKS`; None for all.
        name: of the pair, for the report.
        variant: of the pair, for the report.
        task: what the pair is trained on in `trajectory`, `compiled` and `lowering`; None for a
            mean of the sine of all outputs, with inputs drawn as for the other checks.
        methods: names from `METHODS` that `trajectory` trains with.
        seed: of the random weights and inputs.

    Raises:
        KeyError: an unknown check.
        bridge.BridgeError: weights of one side without a counterpart on the other.

    >>> x = Input(name="x", shape=(2, 4), axes="bf")
    >>> pair = nnx.Linear(4, 3, rngs=nnx.Rngs(0)), torch.nn.Linear(4, 3)
    >>> check(*pair, [x], ["forward", "round_trip"]).passed
    True
    """
    for kind, known, chosen in (("check", CHECKS, checks or ()), ("method", METHODS, methods)):
        for unknown in set(chosen) - known.keys():
            raise KeyError(f"{kind} {unknown!r} is unknown; use {', '.join(known)}")
    rows = []
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        pair = Pair(flax_model, torch_model, inputs, seed)
        subject = Subject(pair, task or any_task(pair), methods)
        for chosen in checks or CHECKS:
            began = time.perf_counter()
            finding = _run(CHECKS[chosen], subject)
            passed = bool(finding.error <= finding.bound)
            fault = Fault() if passed else explain(chosen, pair, finding.worst, subject.task)
            rows.append(
                Row(
                    architecture=name,
                    variant=variant,
                    check=chosen,
                    passed=passed,
                    error=float(finding.error),
                    bound=float(finding.bound),
                    worst=finding.worst,
                    seconds=time.perf_counter() - began,
                    place=fault.place,
                    cause=fault.cause,
                    arrays=finding.arrays,
                    layers=finding.layers,
                )
            )
    return Report(rows)


def _run(chosen: Callable[[Subject], Finding], subject: Subject) -> Finding:
    """A check's finding; a model that raises has failed it, and says how."""
    try:
        return chosen(subject)
    except Exception as error:  # whatever a model under test may raise
        first_line = str(error).strip().partition("\n")[0]
        return Finding(np.inf, 0.0, f"{type(error).__name__}: {first_line}")
