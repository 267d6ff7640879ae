"""A description of what a layer may have done instead, and the layer's output if it were so."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch


class Hypothesis(NamedTuple):
    """A description, and the layer's output if it were so."""

    text: str
    output: Callable[..., Any]


def option(**changed: Any) -> Hypothesis:
    """The layer with other options."""
    ((name, value),) = changed.items()
    shown = f"{value:.3g}" if isinstance(value, float) else value

    def output(m, *args, **kwargs):
        setattr(m, name, value)
        return m(*args, **kwargs)

    return Hypothesis(f"{name} {shown}, not {{m.{name}}}", output)


def weights(text: str, kinds: str, change: Callable) -> Hypothesis:
    """The layer with weights, whose names begin as one of those named, that are changed."""

    def output(m, *args, **kwargs):
        with torch.no_grad():
            for name, value in m.named_parameters():
                if name.startswith(tuple(kinds.split())):
                    value.copy_(change(value.clone()))
        return m(*args, **kwargs)

    return Hypothesis(text, output)
