"""The checks on the library's own twins."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx

import flaxnets
from flaxnets import specs, tasks
from flaxnets.data import drawn
from flaxnets.parity.proof import check
from flaxnets.parity.report import Report
from flaxnets.parity.trajectory import BATCHES, Task
from flaxnets.specs import Spec
from flaxnets.summary import count_parameters
from torch_ref import tasks as torch_tasks

BATCH = 4
MOST_WEIGHTS = 3_000_000  # variants above are for training, not for every run of the suite


def variants(name: str) -> dict[str, Spec]:
    """The variants of an architecture that the suite checks: those below `MOST_WEIGHTS`.

    >>> "tiny" in variants("lenet")
    True
    """
    return {
        variant: spec
        for variant, spec in specs.variants(name).items()
        if count_parameters(spec) <= MOST_WEIGHTS
    }


def check_architecture(
    name: str,
    variant: str = "default",
    checks: Sequence[str] | None = None,
    methods: Sequence[str] = ("adam",),
    **overrides: Any,
) -> Report:
    """All checks, or those named, on the twins of an architecture.

    Args:
        name: of the architecture.
        variant: one of its named sizes.
        checks: names from `CHECKS`; None for all.
        methods: names from `METHODS` that `trajectory` trains with.
        **overrides: spec fields that replace the variant's.

    Raises:
        specs.SpecError: an unknown name, variant or field, or an impossible value.

    >>> check_architecture("lenet", "tiny", ["round_trip"]).passed
    True
    """
    spec = specs.make(name, variant, **overrides)

    @functools.cache
    def graph_and_program() -> tuple[Any, Any]:
        graph = nnx.graphdef(nnx.eval_shape(lambda: flaxnets.build(spec)))
        return graph, jax.jit(lambda key: nnx.state(flaxnets.build(spec, "flax", key)))

    def build(seed: int) -> nnx.Module:
        """The first as users build it, the many that `initialisation` pools by one program."""
        if seed == 0:
            return flaxnets.build(spec)
        graph, born = graph_and_program()
        return nnx.merge(graph, born(jax.random.key(seed)))

    return check(
        build,
        lambda seed: flaxnets.build(spec, "torch", seed),
        spec.inputs(BATCH),
        checks,
        name=name,
        variant=variant,
        task=task(spec) if spec.task else None,
        methods=methods,
    )


def task(spec: Spec) -> Task:
    """What the twins are trained on: their own objectives, with random batches.

    >>> images, labels = task(specs.make("lenet", "tiny")).batches[0]
    >>> images.shape, labels.shape
    ((4, 18, 18, 2), (4,))
    """
    return Task(
        tasks.of(spec).objectives(spec),
        torch_tasks.objectives(spec),
        spec.examples(BATCH),
        [drawn.batch(spec, BATCH, seed) for seed in range(BATCHES)],
    )
