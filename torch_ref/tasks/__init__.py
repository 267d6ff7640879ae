"""The losses of `flaxnets.tasks` in torch's own terms, one file a task."""

import importlib
import pkgutil
from typing import Any

from flaxnets.specs import Spec
from torch_ref.training.objective import Objective


def objectives(spec: Spec, **options: float) -> dict[str, Objective]:
    """The losses of a network by the part of the model that each moves, "" for all of it.

    Args:
        spec: of the network.
        **options: of a recipe that the task understands.

    >>> from flaxnets import specs
    >>> list(objectives(specs.make("gan")))
    ['discriminator', 'generator']
    """
    return __getattr__(spec.task).objectives(spec, **options)


def __getattr__(name: str) -> Any:
    if name not in {module.name for module in pkgutil.iter_modules(__path__)}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
