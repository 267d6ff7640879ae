"""torch.nn's activations by the names that specs use."""

from torch import nn

BY_NAME = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def activation(name: str) -> nn.Module:
    """A new activation by the name that specs use.

    >>> activation("relu")
    ReLU()
    """
    return BY_NAME[name]()
