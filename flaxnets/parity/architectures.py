"""The checks on the library's own twins."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

import flaxnets
from flaxnets import specs
from flaxnets.parity.checks import check
from flaxnets.parity.pair import draw
from flaxnets.parity.report import Report
from flaxnets.parity.trajectory import BATCHES, Task
from flaxnets.specs import Input, Spec
from flaxnets.summary import count_parameters
from flaxnets.training import objectives
from torch_ref.training import objectives as torch_objectives

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
    graph = nnx.graphdef(nnx.eval_shape(lambda: flaxnets.build(spec)))
    born = jax.jit(lambda key: nnx.state(flaxnets.build(spec, "flax", key)))
    return check(
        lambda seed: nnx.merge(graph, born(jax.random.key(seed))),
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
        objectives.phases(spec.task, spec.outputs),
        torch_objectives.phases(spec.task, spec.outputs),
        spec.examples(BATCH),
        [_batch(spec, seed) for seed in range(BATCHES)],
    )


def _batch(spec: Spec, seed: int) -> tuple[Any, np.ndarray | None]:
    """Random examples, real ones between 0 and 1 as images are, and random targets."""
    rng = np.random.Generator(np.random.Philox(seed))

    def drawn(wanted: Input) -> np.ndarray:
        return rng.random(wanted.shape, np.float32) if wanted.high is None else draw(rng, wanted)

    examples = tuple(drawn(wanted) for wanted in spec.examples(BATCH))
    targets = spec.targets(BATCH)
    labels = None if targets is None else drawn(targets)
    return (examples if len(examples) > 1 else examples[0]), labels
