"""How each layer type's weights are named and laid out on the two sides.

A rule belongs to a layer type and holds for its subclasses. Axes: i j in, o out; dots stand
for the spatial axes of a kernel.
"""

from typing import NamedTuple

import numpy as np
from flax import nnx

from flaxnets.layers.activation import PReLU
from flaxnets.layers.conv_transpose import _ConvTranspose
from flaxnets.layers.linear import Bilinear
from flaxnets.layers.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)


class Leaf(NamedTuple):
    """One weight of a layer.

    Attributes:
        flax: the attribute that holds it in the NNX layer.
        torch: its name in the torch layer's state_dict.
        pattern: einops, "torch's axes -> Flax's axes"; read from right to left on the way
            back. None leaves the array as it is.
        torch_dtype: of the torch leaf where it is not Flax's: torch counts in int64, which
            JAX has only under `jax.enable_x64`, so that Flax counts in int32. Values cross
            exactly or not at all.

    >>> Leaf("kernel", "weight", "o i -> i o").to_torch()
    'i o -> o i'
    """

    flax: str
    torch: str
    pattern: str | None = None
    torch_dtype: str | None = None

    def to_flax(self) -> str | None:
        """The pattern that takes torch's layout to Flax's."""
        return self.pattern

    def to_torch(self) -> str | None:
        """The pattern that takes Flax's layout to torch's."""
        return self.pattern and " -> ".join(reversed(self.pattern.split(" -> ")))


class TorchOnly(NamedTuple):
    """What the torch layer holds and the NNX layer has no place or use for.

    It has to be there on the way in, with its shape and dtype, and its value is let go; on
    the way out it is `value`, as in a fresh torch layer. A rule may say this only of what no
    result of the NNX layer depends on.

    >>> from flaxnets import bridge
    >>> bridge.state_dict(nnx.BatchNorm(2, rngs=nnx.Rngs(0)))["num_batches_tracked"]
    array(0)
    """

    torch: str
    value: np.ndarray


Entries = tuple[Leaf | TorchOnly, ...]
SCALE = (Leaf("scale", "weight"), Leaf("bias", "bias"))
COUNT = "num_batches_tracked"

RULES: dict[type[nnx.Module], Entries] = {
    nnx.Linear: (Leaf("kernel", "weight", "o i -> i o"), Leaf("bias", "bias")),
    Bilinear: (Leaf("kernel", "weight", "o i j -> i j o"), Leaf("bias", "bias")),
    nnx.Conv: (Leaf("kernel", "weight", "o i ... -> ... i o"), Leaf("bias", "bias")),
    _ConvTranspose: (Leaf("kernel", "weight", "i o ... -> ... o i"), Leaf("bias", "bias")),
    nnx.LayerNorm: SCALE,
    nnx.GroupNorm: SCALE,
    nnx.InstanceNorm: SCALE,
    nnx.RMSNorm: SCALE[:1],
    nnx.Embed: (Leaf("embedding", "weight"),),
    # nnx.BatchNorm keeps no count and, its momentum being a number, needs none.
    nnx.BatchNorm: (
        *SCALE,
        Leaf("mean", "running_mean"),
        Leaf("var", "running_var"),
        TorchOnly(COUNT, np.zeros((), np.int64)),
    ),
    **dict.fromkeys(
        (BatchNorm1d, BatchNorm2d, BatchNorm3d, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d),
        (
            Leaf("weight", "weight"),
            Leaf("bias", "bias"),
            Leaf("running_mean", "running_mean"),
            Leaf("running_var", "running_var"),
            Leaf(COUNT, COUNT, torch_dtype="int64"),
        ),
    ),
    PReLU: (Leaf("weight", "weight"),),
}


def register(layer: type[nnx.Module], *leaves: Leaf | TorchOnly) -> None:
    """Teach the bridge a layer type of your own.

    Args:
        layer: the NNX class; the rule holds for its subclasses too.
        *leaves: every weight that it holds itself, and what only the torch layer holds.

    >>> from flaxnets import bridge
    >>> class Scale(nnx.Module):
    ...     def __init__(self):
    ...         self.gain = nnx.Param(nnx.initializers.ones(None, (3,)))
    >>> bridge.register(Scale, bridge.Leaf("gain", "weight"))
    >>> list(bridge.state_dict(Scale()))
    ['weight']
    """
    RULES[layer] = leaves


def rule(layer: type[nnx.Module]) -> Entries | None:
    """The rule of a layer type or of the nearest class that it inherits from."""
    return next((RULES[parent] for parent in layer.__mro__ if parent in RULES), None)
