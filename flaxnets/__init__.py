"""Canonical networks as Flax NNX and PyTorch twins that are proved to be the same function.

Importing this package imports neither jax nor torch.
"""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from flaxnets import specs
from flaxnets.edge import files
from flaxnets.edge.message import printable, some

__version__ = "0.1.0"
__all__ = ["build", "create", "load", "names", "spec"]

Dtype = Literal["float32", "float64", "float16", "bfloat16"]


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
    dtype: Dtype = "float32",
    **overrides: Any,
) -> Any:
    """Build one twin of an architecture, freshly initialised.

    Args:
        name: an architecture, one of `names()`.
        backend: "flax" for a `flax.nnx.Module`, "torch" for a `torch.nn.Module`.
        variant: one of the architecture's named sizes; None for the seed's own example.
        seed: of the initialisation; the global torch generator is left as it was.
        dtype: of all its weights, which are drawn in float32. What JAX computes with float64 is
            float64 where `jax.enable_x64` says so.
        **overrides: spec fields that replace the variant's.

    Raises:
        specs.SpecError: as `spec`, or an unknown backend or dtype.

    >>> type(create("lenet", variant="tiny")).__name__
    'LeNet'
    """
    return build(spec(name, variant, **overrides), backend, seed, dtype)


def build(
    description: specs.Spec,
    backend: Literal["flax", "torch"] = "flax",
    seed: int = 0,
    dtype: Dtype = "float32",
) -> Any:
    """Build one twin from a spec that is already there; see `create`.

    >>> type(build(spec("lenet", "tiny"))).__name__
    'LeNet'
    """
    if backend not in ("flax", "torch"):
        raise specs.SpecError(f"backend {backend!r} is unknown; use 'flax' or 'torch'")
    if dtype not in get_args(Dtype):
        raise specs.SpecError(f"dtype {dtype!r} is unknown; use {', '.join(get_args(Dtype))}")
    package = "flaxnets.models" if backend == "flax" else "torch_ref.models"
    twin = getattr(importlib.import_module(f"{package}.{description.name}"), description.twin)
    if backend == "flax":
        init, convert = map(
            importlib.import_module, ("flaxnets.layers.init", "flaxnets.bridge.convert")
        )
        model = twin(description, rngs=init.rngs(seed))
        return model if dtype == "float32" else convert.in_dtype(model, dtype)
    torch = importlib.import_module("torch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = twin(description)
    # A table of positions is kept in float64, whatever the weights are.
    return model if dtype == "float32" else model.to(getattr(torch, dtype))


def load(path: str | os.PathLike, backend: Literal["flax", "torch"] = "flax") -> Any:
    """Open the network that a run of `flaxnets train` has left, in either backend.

    It is in evaluation mode, and its weights have the dtype that they were trained in.

    Args:
        path: the folder of a run that has finished.
        backend: as in `create`; that of the run does not matter.

    Raises:
        specs.SpecError: a folder that is no run, or that of one that has not finished.
        ValueError: a file of weights that is broken, or not the network's.

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
    description = _finished(path)
    file = path / "model.safetensors"
    if backend == "torch":
        return _opened(description, file)
    nnx, bridge, convert = map(
        importlib.import_module, ("flax.nnx", "flaxnets.bridge", "flaxnets.bridge.convert")
    )
    state = bridge.read(file)
    dtype: Any = _real(
        {value.dtype.name for value in state.values() if value.dtype.kind in "fV"}, file
    )

    def sketch() -> Any:
        shapes = nnx.eval_shape(lambda: build(description, dtype=dtype))
        for entry in convert.entries(shapes):
            entry.torch_shape  # noqa: B018 - fails where no array has such sizes
        return shapes

    model = _sketched(sketch, path)
    bridge.load_state_dict(model, state)  # which leaves no shape without its array
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)


def _finished(path: Path) -> specs.Spec:
    """The network of a run's folder, which somebody else may have written."""
    run_folder = importlib.import_module("flaxnets.experiment.run_folder")
    try:
        description, told = run_folder.spec_of(path), run_folder.told(path)
        weights = files.within(path, run_folder.WEIGHTS)
        if there := weights.exists():
            files.opened(weights).close()
    except OSError as error:
        raise specs.SpecError(f"{path} is no run: {error.strerror}") from None
    except (ValueError, TypeError, ArithmeticError) as error:
        raise specs.SpecError(f"{path} is no run: {printable(error, 500)}") from None
    if not told.finished or not there:
        raise specs.SpecError(
            f"{path} has not finished; flaxnets train {description.name} --resume {path}"
        )
    return description


def _real(dtypes: set[str], file: Path) -> str:
    if len(dtypes) != 1:
        raise ValueError(
            f"{file}: real weights of {some(sorted(dtypes)) or 'no dtype'}; not of one"
        )
    return dtypes.pop()


def _sketched(sketch: Callable[[], Any], path: Path) -> Any:
    """A model without memory, of a spec whose numbers may be of any size."""
    try:
        return sketch()
    except (ValueError, TypeError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise specs.SpecError(f"{path}: it cannot be built: {printable(error, 500)}") from None


def _opened(description: specs.Spec, file: Path) -> Any:
    """A torch model with the weights of a file, where JAX need not be installed."""
    torch, safetensors, from_file = map(
        importlib.import_module, ("torch", "safetensors", "safetensors.torch")
    )
    broken = (safetensors.SafetensorError, RuntimeError, ValueError, TypeError, LookupError)
    try:
        state = from_file.load_file(file)
    except (*broken, AttributeError, OverflowError) as error:
        said = printable(error, 500)
        raise ValueError(f"{file} is not a whole safetensors file: {said}") from None
    real = {name: value for name, value in state.items() if value.is_floating_point()}
    dtype: Any = _real({str(x.dtype).removeprefix("torch.") for x in real.values()}, file)
    if bad := [name for name, value in real.items() if not value.isfinite().all()]:
        raise ValueError(f"{file}: NaN or infinity in {some(bad)}; use finite weights")

    def sketch() -> Any:
        with torch.device("meta"):
            return build(description, "torch", dtype=dtype)

    wanted = _sketched(sketch, file.parent).state_dict()
    findings = [f"missing {name}" for name in wanted.keys() - state.keys()]
    findings += [f"unexpected {name}" for name in state.keys() - wanted.keys()]
    for name in wanted.keys() & state.keys():
        ours, theirs = ((*x.shape, x.dtype) for x in (wanted[name], state[name]))
        findings += [f"{name} is {theirs}, not {ours}"] if theirs != ours else []
    if findings:
        raise ValueError(f"{file}: weights do not fit: {some(sorted(findings), '; ')}")
    model = build(description, "torch", dtype=dtype)
    model.load_state_dict(state)
    return model.eval()
