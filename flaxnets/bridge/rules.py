"""How each layer type's weights are named and laid out on the two sides.

A rule belongs to a layer type and holds for its subclasses. Axes: i in, o out; dots stand
for the spatial axes of a kernel.
"""

from typing import NamedTuple

from flax import nnx

from flaxnets.layers.activation import PReLU


class Leaf(NamedTuple):
    """One weight of a layer.

    Attributes:
        flax: the attribute that holds it in the NNX layer.
        torch: its name in the torch layer's state_dict.
        pattern: einops, "torch's axes -> Flax's axes"; read from right to left on the way
            back. None leaves the array as it is.
    """

    flax: str
    torch: str
    pattern: str | None = None

    def to_flax(self) -> str | None:
        """The pattern that takes torch's layout to Flax's."""
        return self.pattern

    def to_torch(self) -> str | None:
        """The pattern that takes Flax's layout to torch's."""
        return self.pattern and " -> ".join(reversed(self.pattern.split(" -> ")))


RULES: dict[type[nnx.Module], tuple[Leaf, ...]] = {
    nnx.Linear: (Leaf("kernel", "weight", "o i -> i o"), Leaf("bias", "bias")),
    nnx.Conv: (Leaf("kernel", "weight", "o i ... -> ... i o"), Leaf("bias", "bias")),
    PReLU: (Leaf("weight", "weight"),),
}


def register(layer: type[nnx.Module], *leaves: Leaf) -> None:
    """Teach the bridge a layer type of your own.

    Args:
        layer: the NNX class; the rule holds for its subclasses too.
        *leaves: every weight that it holds itself.

    >>> class Scale(nnx.Module):
    ...     def __init__(self):
    ...         self.gain = nnx.Param(nnx.initializers.ones(None, (3,)))
    >>> register(Scale, Leaf("gain", "weight"))
    >>> from flaxnets import bridge
    >>> list(bridge.state_dict(Scale()))
    ['weight']
    """
    RULES[layer] = leaves


def rule(layer: type[nnx.Module]) -> tuple[Leaf, ...] | None:
    """The rule of a layer type or of the nearest class that it inherits from."""
    return next((RULES[parent] for parent in layer.__mro__ if parent in RULES), None)
