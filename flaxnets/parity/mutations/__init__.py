"""Faults planted on purpose: a suite that lets one pass has a hole.

Each replaces a piece of the Flax side for a moment, as a slip of the pen would, and names the
check that has to fail and the place that the report has to point at.
"""

from collections.abc import Callable, Iterable
from typing import Any

from flaxnets.parity.mutations import (
    attention,
    dense,
    images,
    normalization,
    programs,
    recurrent,
    training,
    weights,
)
from flaxnets.parity.mutations.mutation import Caught, Mutation

MUTATIONS: tuple[Mutation, ...] = (
    *dense.MUTATIONS,
    *images.MUTATIONS,
    *normalization.MUTATIONS,
    *recurrent.MUTATIONS,
    *attention.MUTATIONS,
    *training.MUTATIONS,
    *weights.MUTATIONS,
    *programs.MUTATIONS,
)


def run_all(
    progress: Callable[[Iterable[Mutation]], Iterable[Mutation]] = iter,
    mutations: Iterable[Mutation] = MUTATIONS,
) -> list[Caught]:
    """Plant every fault in turn and see whether the suite catches it, at its place.

    Args:
        progress: wraps the faults, as `rich.progress.track` does.
        mutations: those to plant.
    """
    return [mutation.run() for mutation in progress(mutations)]


def score(caught: Iterable[Caught]) -> dict[str, Any]:
    """Of a run, what the report holds: every fault, and how many were caught.

    >>> score([Caught("tanh GELU", True, "forward", "act", "GELU by tanh")])["score"]
    '1 of 1'
    """
    caught = list(caught)
    return {
        "mutations": [
            {
                "name": one.name,
                "caught": one.caught,
                "by": f"{one.by} at {one.place}" if one.caught else None,
            }
            for one in caught
        ],
        "score": f"{sum(one.caught for one in caught)} of {len(caught)}",
    }
