"""Canonical networks as Flax NNX and PyTorch twins that are proved to be the same function.

Importing this package imports neither jax nor torch.
"""

import importlib
import json
import os
from pathlib import Path
from typing import Any, Literal

from flaxnets import specs

__version__ = "0.1.0"
__all__ = ["build", "create", "load", "names", "spec"]


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


def load(path: str | os.PathLike, backend: Literal["flax", "torch"] = "flax") -> Any:
    """Open the network that a run of `flaxnets train` has left, in either backend.

    It is in evaluation mode, and its weights have the dtype that they were trained in.

    Args:
        path: the folder of a run that has finished.
        backend: as in `create`; that of the run does not matter.

    Raises:
        specs.SpecError: a folder that is no run, or that of one that has not finished.
        ValueError: weights that are not the network's.

    >>> import tempfile
    >>> from flaxnets import bridge
    >>> run = Path(tempfile.mkdtemp())
    >>> _ = (run / "spec.json").write_text(spec("mlp").to_json())
    >>> _ = (run / "run.json").write_text('{"finished": true}')
    >>> bridge.save(create("mlp"), run / "model.safetensors")
    >>> load(run, "torch").training
    False
    """
    path = Path(path)
    try:
        description = specs.from_json((path / "spec.json").read_text())
        finished = json.loads((path / "run.json").read_text()).get("finished")
    except OSError as error:
        raise specs.SpecError(f"{path} is no run: {error.strerror}") from None
    except (ValueError, AttributeError) as error:
        raise specs.SpecError(f"{path} is no run: {error}") from None
    file = path / "model.safetensors"
    if not finished or not file.exists():
        raise specs.SpecError(
            f"{path} has not finished; flaxnets train {description.name} --resume {path}"
        )
    model = build(description, backend)
    if backend == "torch":
        return _opened(model, file)
    nnx, bridge, convert = map(
        importlib.import_module, ("flax.nnx", "flaxnets.bridge", "flaxnets.bridge.convert")
    )
    state = bridge.read(file)
    (dtype,) = {value.dtype.name for value in state.values() if value.dtype.kind in "fV"}
    model = convert.in_dtype(model, dtype)
    bridge.load_state_dict(model, state)
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)


def _opened(model: Any, file: Path) -> Any:
    """A torch model with the weights of a file, where JAX need not be installed."""
    state = importlib.import_module("safetensors.torch").load_file(file)
    (dtype,) = {value.dtype for value in state.values() if value.is_floating_point()}
    try:
        model.to(dtype).load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{file}: {' '.join(str(error).split())}") from None
    return model.eval()
