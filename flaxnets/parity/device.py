"""On which device the JAX side of a check runs, and that neither side rounds its factors."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import torch

from flaxnets import environment


@contextlib.contextmanager
def on(platform: str | None) -> Iterator[None]:
    """Run the JAX side on a platform, with TF32 off on the torch side, which stays on the CPU.

    Args:
        platform: one of `environment.PLATFORMS`; None for JAX's own choice.

    Raises:
        SpecError: an unknown platform, or one that JAX has no device of.

    >>> with on("cpu"):
    ...     jax.numpy.ones(2).device.platform
    'cpu'
    """
    device = environment.device(platform)
    with jax.default_device(device) if platform else contextlib.nullcontext(), _no_tf32():
        yield


@contextlib.contextmanager
def _no_tf32() -> Iterator[None]:
    backends: Any = torch.backends  # whose stubs know less than the documentation
    operations = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    before = [operation.fp32_precision for operation in operations]
    try:
        for operation in operations:
            operation.fp32_precision = "ieee"
        yield
    finally:
        for operation, precision in zip(operations, before, strict=True):
            operation.fp32_precision = precision
