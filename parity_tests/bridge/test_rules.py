"""Rules: the nearest class decides, and a pattern is its own way back."""

import numpy as np
from einops import rearrange
from flax import nnx

from flaxnets import bridge, layers
from flaxnets.bridge import Leaf
from flaxnets.bridge.rules import RULES, rule


def test_patterns_are_permutations():
    """There and back is the identity, bit by bit."""
    patterns = {
        leaf.pattern: leaf
        for leaves in RULES.values()
        for leaf in leaves
        if isinstance(leaf, Leaf) and leaf.pattern
    }
    assert len(patterns) >= 2
    for pattern, leaf in patterns.items():
        axes = pattern.split(" -> ")[0].replace("...", "h w").split()
        shape = [2, 3, 5, 7, 11][: len(axes)]
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
