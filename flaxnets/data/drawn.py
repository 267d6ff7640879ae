"""Random examples of the shapes that a spec describes, for checks and benchmarks."""

from typing import Any

import numpy as np

from flaxnets.specs import Input, Spec


def batch(spec: Spec, size: int, seed: int = 0) -> tuple[Any, np.ndarray | None]:
    """Random examples, real ones between 0 and 1 as images are, and random targets.

    Args:
        spec: of the network that is to be trained on them.
        size: examples in the batch.
        seed: of the random numbers.

    >>> from flaxnets import specs
    >>> images, labels = batch(specs.make("lenet", "tiny"), 4)
    >>> images.shape, labels.shape
    ((4, 18, 18, 2), (4,))
    """
    rng = np.random.Generator(np.random.Philox(seed))

    def drawn(wanted: Input) -> np.ndarray:
        return rng.random(wanted.shape, np.float32) if wanted.high is None else draw(rng, wanted)

    examples = tuple(drawn(wanted) for wanted in spec.examples(size))
    targets = spec.targets(size)
    labels = None if targets is None else drawn(targets)
    return (examples if len(examples) > 1 else examples[0]), labels


def draw(rng: np.random.Generator, wanted: Input) -> np.ndarray:
    """Random values that fit a description.

    >>> words = Input(name="words", shape=(9, 4), axes="bt", high=9, padding=0)
    >>> (draw(np.random.default_rng(0), words) > 0).all(axis=0).tolist()
    [True, False, False, False]
    """
    if wanted.high is None:
        return rng.standard_normal(wanted.shape, np.float32)
    values = rng.integers(int(wanted.padding == 0), wanted.high, wanted.shape).astype(np.int32)
    if wanted.padding is None:
        return values
    if wanted.axes == "b":
        values[0] = wanted.high - 1
        return values
    ends = rng.integers(1, wanted.shape[1] + 1, wanted.shape[0])
    ends[0] = wanted.shape[1]
    return np.where(np.arange(wanted.shape[1]) < ends[:, None], values, np.int32(wanted.padding))
