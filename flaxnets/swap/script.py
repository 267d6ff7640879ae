"""Training scripts, which one backend begins and the other goes on with."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flaxnets import bridge
from flaxnets.swap.handover import (
    Handover,
    HandoverError,
    raise_for,
    read,
    step_findings,
    write,
)


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """What a script goes on with.

    Attributes:
        step: how many steps were taken.
        seed: of the random numbers, see `Handover`; None if the script before did not say.
        optimizer: the one that was given, which now goes on; of an optax state the new one.
        average: of the weights, by torch's names; None where none was kept.
    """

    step: int
    seed: int | None
    optimizer: Any
    average: Mapping[str, np.ndarray] | None


def save_handover(
    folder: str | os.PathLike,
    model: Any,
    optimizer: Any,
    *,
    step: int,
    seed: int | None = None,
    scheduler: Any = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write what a training script needs to go on, in whichever backend.

    Args:
        folder: a new one, or an empty one.
        model: a `torch.nn.Module` or an `nnx.Module`.
        optimizer: of torch, the `torch.optim.Optimizer`; of Flax, the optax state or the
            `nnx.Optimizer` around it: of `flaxnets.training.optimizers`, or of optax's own
            `adam`, `adamw` and `sgd` with momentum. Where several move parts of the model, a
            dict of them by the name of the part.
        step: how many steps were taken.
        seed: of the random numbers, see `Handover`.
        scheduler: of torch's optimizer; a dict as well where the optimizers are one. A schedule
            of Flax is in its state.
        options: of Flax, what the optimizer was made with, by torch's names, to be compared
            where the other side goes on; torch's optimizer knows its own.

    Raises:
        HandoverError: a model or optimizer that has no neutral form, a step or seed out of range,
            a folder that holds something.
        OSError: files that cannot be written.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from flax import nnx
    >>> from flaxnets import create
    >>> from flaxnets.training import optimizers
    >>> folder = Path(tempfile.mkdtemp()) / "handover"
    >>> model = create("linear_network")
    >>> state = optimizers.adagrad().init(nnx.state(model, nnx.Param))
    >>> save_handover(folder, model, state, step=0, seed=7)
    >>> load_handover(folder, model, state).seed
    7
    """
    raise_for(step_findings(step))
    side, about = _side(model, optimizer, scheduler, options)
    try:
        weights, found = side.capture(model, _by_part(optimizer), step, about)
    except bridge.BridgeError as error:
        raise HandoverError(str(error)) from None
    write(folder, Handover(step=step, weights=weights, optimizers=found, seed=seed))


def load_handover(
    folder: str | os.PathLike,
    model: Any,
    optimizer: Any,
    *,
    scheduler: Any = None,
    options: Mapping[str, Any] | None = None,
) -> Resumed:
    """Go on from what `save_handover` or a run of `flaxnets train` has written.

    A torch model, optimizer and scheduler, an NNX model and an `nnx.Optimizer` are changed in
    place; an optax state stays as it is, and the one to go on with is returned.

    Args:
        folder: of the handover.
        model: as in `save_handover`, of the same architecture and dtype.
        optimizer: as in `save_handover`, of the same kind.
        scheduler: of torch's optimizer, made for it and not yet advanced.
        options: of Flax, what the optimizer was made with. The hyper-parameters of an
            `nnx.Optimizer` are seen by its steps, those of `optax.inject_hyperparams` are in the
            state; of another optax state they are not known, which a warning says.

    Raises:
        HandoverError: a folder that is none, or with every name, shape, dtype, kind and
            hyper-parameter that does not fit; nothing is then changed.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from flaxnets import build, create, spec
    >>> import torch
    >>> folder, model = Path(tempfile.mkdtemp()) / "handover", build(spec("mlp"), "torch")
    >>> save_handover(folder, model, torch.optim.SGD(model.parameters(), lr=0.1), step=5)
    >>> from flax import nnx
    >>> from flaxnets.training import optimizers
    >>> network = create("mlp", seed=1)
    >>> optimizer = nnx.Optimizer(network, optimizers.sgd(0.1), wrt=nnx.Param)
    >>> load_handover(folder, network, optimizer).step
    5
    """
    found = read(folder)
    side, about = _side(model, optimizer, scheduler, options)
    try:
        after = side.restore(model, _by_part(optimizer), found, about)
    except bridge.BridgeError as error:
        raise HandoverError(f"{folder}: {error}") from None
    if hasattr(side, "unseen"):  # torch's optimizers show all that they were made with
        for line in side.unseen(_by_part(optimizer), found, about):
            warnings.warn(f"{folder}: {line}", stacklevel=2)
    return Resumed(
        step=found.step,
        seed=found.seed,
        optimizer=after if isinstance(optimizer, dict) else after[""],
        average=found.average,
    )


def _side(
    model: Any, optimizer: Any, scheduler: Any, options: Mapping[str, Any] | None
) -> tuple[Any, dict[str, Any]]:
    """The module of a model's backend, and what it is told of the optimizers besides."""
    from flax import nnx

    if isinstance(model, nnx.Module):
        from flaxnets.swap import handover_flax

        whole = isinstance(optimizer, dict)
        return handover_flax, dict(options or {}) if whole else {"": options or {}}
    from flaxnets.swap import handover_torch

    return handover_torch, _by_part(scheduler)


def _by_part(given: Any) -> dict[str, Any]:
    return given if isinstance(given, dict) else {"": given}
