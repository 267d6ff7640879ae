"""The checks on the library's own twins."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

import flaxnets
from flaxnets import specs
from flaxnets.parity.checks import check
from flaxnets.parity.report import Report
from flaxnets.specs import Input, Spec
from flaxnets.summary import count_parameters
from flaxnets.training import objectives

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
    **overrides: Any,
) -> Report:
    """All checks, or those named, on the twins of an architecture.

    Args:
        name: of the architecture.
        variant: one of its named sizes.
        checks: names from `CHECKS`; None for all.
        **overrides: spec fields that replace the variant's.

    Raises:
        specs.SpecError: an unknown name, variant or field, or an impossible value.

    >>> check_architecture("lenet", "tiny", ["round_trip"]).passed
    True
    """
    spec = specs.make(name, variant, **overrides)
    graph = nnx.graphdef(nnx.eval_shape(lambda: flaxnets.build(spec)))
    born = jax.jit(lambda key: nnx.state(flaxnets.build(spec, "flax", key)))
    rng = np.random.Generator(np.random.Philox(0))
    inputs = spec.inputs(BATCH)
    several = tuple(_draw(rng, given) for given in inputs) if len(inputs) > 1 else None
    return check(
        lambda seed: nnx.merge(graph, born(jax.random.key(seed))),
        lambda seed: flaxnets.build(spec, "torch", seed),
        inputs,
        checks,
        name=name,
        variant=variant,
        objectives=objectives.phases(spec.task, spec.outputs),
        batch=(several or _draw(rng, spec.examples(BATCH)), _draw(rng, spec.targets(BATCH))),
    )


def _draw(rng: np.random.Generator, wanted: Input | None) -> np.ndarray | None:
    """An example between 0 and 1, as images are, or a label."""
    if wanted is None:
        return None
    if wanted.high is None:
        return rng.random(wanted.shape, np.float32)
    return rng.integers(0, wanted.high, wanted.shape).astype(np.int32)
