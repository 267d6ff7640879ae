"""One training run, from a spec to files on disk, in either backend, which can be resumed.

A run leaves `spec.json`, `run.json` (recipe, versions, hardware), `metrics.jsonl` (a line a step,
then the final figures), `checkpoints/`, `model.safetensors`, pictures and, of networks that read,
`examples.txt` behind, and `report.html` with all of it.
"""

import contextlib
import importlib.util
import json
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from flaxnets import data, specs, tasks
from flaxnets.data.sampler import order
from flaxnets.edge.files import atomic
from flaxnets.experiment import report, run_folder
from flaxnets.experiment.engine import Engine
from flaxnets.experiment.flax_engine import FlaxEngine
from flaxnets.experiment.recipe import Recipe
from flaxnets.experiment.session import GIB, Place, Session, newest, primary, restore
from flaxnets.summary import require_memory
from flaxnets.swap import handover
from flaxnets.tasks import Evaluation, evaluate
from flaxnets.training import mesh as meshes
from flaxnets.training.loop import TrainingError

HELD_OUT = 10  # one in so many training examples is for evaluations on the way


@dataclass(frozen=True, kw_only=True)
class Outcome(Evaluation):
    """What a run came to.

    Attributes:
        losses: one a step.
        step: after which the weights are those of the figures: the last, or that of the best
            evaluation on the way.
        inputs: of the test, as the network eats them.
        targets: of these.
        out: the folder with the run's files.
    """

    losses: list[float]
    step: int
    inputs: Any
    targets: np.ndarray
    out: Path


def train(spec: specs.Spec, recipe: Recipe, out: Path, place: Place | None = None) -> Outcome:
    """Train a network and leave its files in a folder that is new or empty, or a run's.

    Args:
        spec: of the network; of a run that is resumed, its own or the default.
        recipe: of the run; of one that is resumed, see `Recipe.resumed`.
        out: the folder.
        place: devices, processes, and the run that is resumed; the default device if None.

    Raises:
        data.DataError: data that is absent or does not fit the network.
        TrainingError: a loss that is not finite, a folder that holds something, a run that
            cannot be resumed.
        meshes.MeshError: devices or processes that cannot be had.
        StoppedError: SIGTERM or SIGINT, once the state is saved.
        OSError: files that cannot be written.
    """
    began = time.perf_counter()
    place = place or Place()
    told: run_folder.Told | None = None
    before: Recipe | None = None
    if place.resume is not None:
        spec, before, told = _earlier(place.resume, spec)
        taken = None if out == place.resume else newest(place.resume)
        recipe = before.resumed(recipe, taken)
    if (
        out != place.resume
        and primary()
        and out.exists()
        and (not out.is_dir() or any(out.iterdir()))
    ):
        raise TrainingError(f"{out} is there and not empty; choose another folder")
    if not spec.task:
        raise TrainingError(f"{spec.name}: {spec.twin} has nothing that it is trained towards")
    chosen, digest = _data(spec, recipe, int(place.data_limit * GIB))
    if told and told.data not in (None, digest) and not place.other_data:
        raise TrainingError(
            f"the data of {place.resume} has changed; go on with it all the same by --other-data"
        )
    recipe = recipe.settled(spec, len(chosen.train_targets))
    held, whole = None, chosen
    if recipe.eval_every:
        held, chosen = _hold_out(whole)
        recipe = recipe.settled(spec, len(chosen.train_targets))
    assert recipe.batch_size is not None  # as settled
    order_ = chosen.train_inputs, chosen.train_targets, recipe.batch_size, recipe.seed
    next(data.batches(*order_))  # an impossible batch size shows before anything is written
    mesh = meshes.make(place.mesh) if place.mesh else None
    if recipe.backend == "torch" and (mesh or place.platform not in (None, "cpu")):
        raise TrainingError("backend torch trains on one CPU; leave mesh and platform out")
    if mesh is None and jax.process_count() > 1:
        mesh = meshes.make(f"data={jax.device_count()}")
    if recipe.precision == "float64" and recipe.backend == "flax":
        _require_float64(mesh)
    require_memory(spec, recipe.copies, devices=mesh.shape["fsdp"] if mesh else 1)
    with _precision(recipe):
        handed = before is not None and before.backend != recipe.backend
        engine = _engine(spec, recipe, chosen, mesh, None if handed else told)
        if before is not None and handed:
            before = before.settled(spec, len(chosen.train_targets))
            last = _engine(spec, before, chosen, None, told)
            about = {**json.loads(spec.to_json()), "recipe": before.to_json()}
            _hand_over(last, engine, about, out, place)
        run = Session(spec, recipe, out, place, engine, held, told, digest, began)
        with run:
            run.to_the_end()
            found = evaluate(spec, run.trained.call, whole)
            run.finish(found)
    outcome = Outcome(
        **vars(found),
        losses=run.losses,
        step=engine.taken,
        inputs=whole.test_inputs,
        targets=whole.test_targets,
        out=out,
    )
    if primary():
        _draw(spec, outcome)
        with atomic(out / run_folder.PAGE) as file:
            file.write(report.page(out).encode())
        run.finished()
    return outcome


def _earlier(folder: Path, spec: specs.Spec) -> tuple[specs.Spec, Recipe, run_folder.Told]:
    """Spec, recipe and facts of the run in a folder."""
    try:
        known, told = run_folder.spec_of(folder), run_folder.told(folder)
        before = Recipe.from_json(told.recipe)
    except OSError as error:
        raise TrainingError(f"{folder} is no run to resume: {error.strerror}") from None
    except (ValueError, TrainingError) as error:
        raise TrainingError(f"{folder} is no run to resume: {error}") from None
    if spec not in (known, specs.make(known.name)):
        raise TrainingError(f"{folder} is a run of another {known.name}; leave its fields out")
    return known, before, told


def _precision(recipe: Recipe) -> AbstractContextManager:
    """float64 for as long as a run takes, in this thread alone."""
    return jax.enable_x64(True) if recipe.precision == "float64" else contextlib.nullcontext()


def _require_float64(mesh: Mesh | None) -> None:
    device = jax.local_devices()[0] if mesh is None else mesh.devices.flat[0]
    if device.platform == "tpu":
        raise TrainingError(f"precision float64 is not computed by {device.device_kind}; use cpu")


def _engine(
    spec: specs.Spec,
    recipe: Recipe,
    chosen: data.Dataset,
    mesh: Mesh | None,
    told: run_folder.Told | None,
) -> Engine:
    if recipe.backend == "torch":
        from flaxnets.experiment.torch_engine import TorchEngine

        return TorchEngine(spec, recipe, chosen)
    return FlaxEngine(spec, recipe, chosen, mesh, told.engine if told else None)


def _hand_over(
    last: Engine, engine: Engine, about: dict[str, Any], out: Path, place: Place
) -> None:
    """Let an engine go on where a run of the other backend is, and keep what it is handed."""
    assert place.resume is not None
    if jax.process_count() > 1:
        raise TrainingError("one process hands a run over; resume it with several after that")
    restore(place.resume, last)
    state = replace(last.handover(), run=about)
    engine.take_over(state)
    handover.write(out / "handover", state)


def _data(spec: specs.Spec, recipe: Recipe, limit: int) -> tuple[data.Dataset, str]:
    """The data as it fits the network, and its digest before that."""
    name = recipe.data_dir.name if recipe.data_dir else recipe.data or spec.data
    chosen = data.load(name, recipe.data_dir, limit)
    digest = chosen.digest()
    _check_targets(spec, chosen)
    chosen = data.fit(chosen, spec.examples(1), spec.targets(1), limit)
    wanted = spec.targets(1)
    if wanted and wanted.axes != "bt" and chosen.train_targets.shape[1:] != wanted.shape[1:]:
        raise data.DataError(
            f"{chosen.name} has targets {chosen.train_targets.shape[1:]}, "
            f"{spec.name} outputs {wanted.shape[1:]}"
        )
    return chosen, digest


def _hold_out(chosen: data.Dataset) -> tuple[data.Dataset, data.Dataset]:
    """A part of the training data in place of the test's, and the data without that part."""
    count = len(chosen.train_targets)
    if count < HELD_OUT:
        raise data.DataError(f"{chosen.name} has {count} examples, too few to evaluate on some")
    rows = np.sort(order(0, 0, count)[: count // HELD_OUT])
    rest = np.setdiff1d(np.arange(count), rows)

    def pick(rows: np.ndarray) -> tuple[Any, Any]:
        return jax.tree.map(lambda x: x[rows], (chosen.train_inputs, chosen.train_targets))

    inputs, targets = pick(rows)
    train_inputs, train_targets = pick(rest)
    left = replace(chosen, train_inputs=train_inputs, train_targets=train_targets)
    return replace(left, test_inputs=inputs, test_targets=targets), left


def _check_targets(spec: specs.Spec, chosen: data.Dataset) -> None:
    """Targets of the network's kind, and room for every token and label of the data."""
    small = {
        field: size
        for field, size in chosen.sizes.items()
        if hasattr(spec, field) and getattr(spec, field) < size
    }
    if small:
        needed = ", ".join(f"{field} {size}" for field, size in small.items())
        given = ", ".join(f"{field} {getattr(spec, field)}" for field in small)
        raise data.DataError(f"{chosen.name} needs {needed}, {spec.name} has {given}")
    wanted = spec.targets(1)
    if wanted is None:
        return
    if (wanted.high is None) != (chosen.num_classes is None):
        kind = "labels" if wanted.high else "numbers"
        raise data.DataError(f"{spec.name} is trained towards {kind}, which {chosen.name} lacks")
    if wanted.high is not None and (chosen.num_classes or 0) > wanted.high:
        raise data.DataError(
            f"{chosen.name} has {chosen.num_classes} classes but num_classes is {wanted.high}"
        )


def _draw(spec: specs.Spec, outcome: Outcome) -> None:
    """The pictures that a person would want to see, where matplotlib is there to draw them."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    from flaxnets.page import pictures

    figures = {"loss": pictures.loss(outcome.losses)}
    figures |= tasks.of(spec).pictures(spec, outcome.inputs, outcome.targets, outcome)
    for name, figure in figures.items():
        pictures.save(figure, outcome.out / f"{name}.png")
