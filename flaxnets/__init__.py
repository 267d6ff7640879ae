"""Canonical networks as Flax NNX and PyTorch twins that are proved to be the same function.

Importing this package imports neither jax nor torch.
"""

import importlib
from typing import Any, Literal

from flaxnets import specs

__version__ = "0.1.0"
__all__ = ["build", "create", "names", "spec"]


def names() -> tuple[str, ...]:
    """All architectures, in alphabetical order.

    >>> "lenet" in names()
    True
    """
    return specs.names()


def spec(name: str, variant: str | None = None, **overrides: Any) -> specs.Spec:
    """The description that both twins of an architecture are built from.

    Args:
        name: an architecture, one of `names()`.
        variant: one of the architecture's named sizes; None for the seed's own example.
        **overrides: spec fields that replace the variant's.

    Raises:
        specs.SpecError: an unknown name, variant or field, or a value that cannot be built.

    >>> spec("mlp", num_classes=3).num_classes
    3
    """
    return specs.make(name, variant, **overrides)


def create(
    name: str,
    backend: Literal["flax", "torch"] = "flax",
    variant: str | None = None,
    seed: int = 0,
    **overrides: Any,
) -> Any:
    """Build one twin of an architecture, freshly initialised.

    Args:
        name: an architecture, one of `names()`.
        backend: "flax" for a `flax.nnx.Module`, "torch" for a `torch.nn.Module`.
        variant: one of the architecture's named sizes; None for the seed's own example.
        seed: of the initialisation; the global torch generator is left as it was.
        **overrides: spec fields that replace the variant's.

    Raises:
        specs.SpecError: as `spec`, or an unknown backend.

    >>> type(create("lenet", variant="tiny")).__name__
    'LeNet'
    """
    return build(spec(name, variant, **overrides), backend, seed)


def build(
    description: specs.Spec, backend: Literal["flax", "torch"] = "flax", seed: int = 0
) -> Any:
    """Build one twin from a spec that is already there; see `create`.

    >>> type(build(spec("lenet", "tiny"))).__name__
    'LeNet'
    """
    if backend not in ("flax", "torch"):
        raise specs.SpecError(f"backend {backend!r} is unknown; use 'flax' or 'torch'")
    package = "flaxnets.models" if backend == "flax" else "torch_ref.models"
    twin = getattr(importlib.import_module(f"{package}.{description.name}"), description.twin)
    if backend == "flax":
        nnx = importlib.import_module("flax.nnx")
        return twin(description, rngs=nnx.Rngs(seed))
    torch = importlib.import_module("torch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return twin(description)
