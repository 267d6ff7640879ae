"""The checks on the library's own twins."""

from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx

import flaxnets
from flaxnets import specs
from flaxnets.parity.checks import check
from flaxnets.parity.report import Report
from flaxnets.specs import Spec
from flaxnets.training import objectives

BATCH = 4
MOST_WEIGHTS = 2_000_000  # variants above are for training, not for every run of the suite


def variants(name: str) -> dict[str, Spec]:
    """The variants of an architecture that the suite checks: those below `MOST_WEIGHTS`.

    >>> "tiny" in variants("lenet")
    True
    """
    return {
        variant: spec
        for variant, spec in specs.variants(name).items()
        if _weights(spec) <= MOST_WEIGHTS
    }


def check_architecture(
    name: str, variant: str = "default", checks: Sequence[str] | None = None
) -> Report:
    """All checks, or those named, on the twins of an architecture.

    Raises:
        specs.SpecError: an unknown name or variant.

    >>> check_architecture("lenet", "tiny", ["round_trip"]).passed
    True
    """
    spec = specs.make(name, variant)
    graph = nnx.graphdef(nnx.eval_shape(lambda: flaxnets.build(spec)))
    born = jax.jit(lambda key: nnx.state(flaxnets.build(spec, "flax", key)))
    rng = np.random.Generator(np.random.Philox(0))
    return check(
        lambda seed: nnx.merge(graph, born(jax.random.key(seed))),
        lambda seed: flaxnets.build(spec, "torch", seed),
        spec.inputs(BATCH),
        checks,
        name=name,
        variant=variant,
        objective=objectives.BY_TASK[spec.task](spec.outputs),
        targets=rng.integers(0, spec.num_classes, BATCH).astype(np.int32),  # type: ignore[attr-defined]
    )


def _weights(spec: Spec) -> int:
    shapes = nnx.state(nnx.eval_shape(lambda: flaxnets.build(spec)), nnx.Param)
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
