"""How a step asks for a loss: `objective(model, batch) -> loss, metrics`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Objective = Callable[[nn.Module, Any], tuple[torch.Tensor, dict[str, torch.Tensor]]]


def together(inputs: Any) -> tuple:
    """A batch's inputs, one tensor or a tuple of several, as a tuple.

    >>> together(1), together((1, 2))
    ((1,), (1, 2))
    """
    return inputs if isinstance(inputs, tuple) else (inputs,)
