"""Rules: the nearest class decides, and a pattern is its own way back."""

import numpy as np
from einops import rearrange
from flax import nnx

from flaxnets import bridge, layers
from flaxnets.bridge import Leaf
from flaxnets.bridge.rules import RULES, rule


def test_patterns_are_permutations():
    """There and back is the identity, bit by bit."""
    for leaves in RULES.values():
        for leaf in filter(lambda leaf: leaf.pattern, leaves):
            torch_axes = leaf.pattern.split(" -> ")[0].split()
            shape = [size for axis, size in zip(torch_axes, (2, 3, 4), strict=False)]
            shape += [5, 7] * ("..." in torch_axes)
            shape = shape[: len(torch_axes) + ("..." in torch_axes)]
            there = np.arange(np.prod(shape)).reshape(shape)
            back = rearrange(rearrange(there, leaf.to_flax()), leaf.to_torch())
            np.testing.assert_array_equal(back, there)


def test_subclass_inherits():
    """Our Linear is an nnx.Linear to the bridge, and a class of one's own may say otherwise."""
    assert rule(layers.Linear) == RULES[nnx.Linear]
    assert rule(nnx.Module) is None

    class Scaled(layers.Linear):
        pass

    bridge.register(Scaled, Leaf("kernel", "matrix"), Leaf("bias", "offset"))
    try:
        assert list(bridge.state_dict(Scaled(2, 3, rngs=nnx.Rngs(0)))) == ["matrix", "offset"]
    finally:
        del RULES[Scaled]
