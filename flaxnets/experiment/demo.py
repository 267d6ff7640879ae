"""The whole library in one go: train LeNet in JAX, carry it to PyTorch, prove both equal."""

import base64
import io
import json
import shutil
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

import flaxnets
from flaxnets import bridge, parity, specs
from flaxnets.edge.files import atomic, within
from flaxnets.edge.message import some
from flaxnets.experiment import run_folder
from flaxnets.experiment.recipe import Recipe
from flaxnets.experiment.run import Outcome, train
from flaxnets.page import pictures
from flaxnets.page.pictures import FLAX_COLOUR, TORCH_COLOUR
from flaxnets.training.checkpoints import Checkpoints
from flaxnets.training.loop import TrainingError
from torch_ref.arrays import tensors
from torch_ref.training.loop import predict

RUN, MARK = "run", "demo.json"  # in a demo's folder, beside the report
OF_RUN = (*run_folder.FILES, "loss.png", "confusion.png")
DIGITS = 12  # shown in the report


def demo(out: Path, console: Console) -> int:
    """Train, carry over, prove and report; 0 if the twins are equal, 1 if not.

    Args:
        out: a folder for the report and the run; those of an earlier demo are replaced.
        console: where to write.

    Raises:
        TrainingError: a folder that holds something else.
        CheckpointError: one in which another demo is at work.
        OSError: files that cannot be written.
    """
    spec = specs.make("lenet")
    jax.devices()  # without any, nothing is written
    _make_room(out)
    outcome = train(spec, Recipe(steps=1200), out / RUN)
    console.print(f"JAX test accuracy    {outcome.figures['test_accuracy']:.2%}", highlight=False)

    twin = flaxnets.build(spec, "torch", seed=1)
    twin.load_state_dict(tensors(bridge.read(out / RUN / run_folder.WEIGHTS)))
    classes = predict(twin, outcome.inputs, spec.inputs(1)[0].axes).argmax(-1)
    equal = int(np.sum(classes == outcome.outputs.argmax(-1)))
    count = len(classes)
    share = np.mean(classes == outcome.targets)
    console.print(
        f"torch test accuracy  {share:.2%}, same weights; "
        f"{equal} of {count} predictions are the same",
        highlight=False,
    )

    report = parity.check_architecture("lenet")
    console.print(report.to_table())
    page = out / "report.html"
    with atomic(page) as file:
        file.write(_page(outcome, classes, report).encode())
    console.print(f"report: {page}", highlight=False, soft_wrap=True)
    return 0 if report.passed and equal == count else 1


def _make_room(out: Path) -> None:
    """Remove the run of an earlier demo, and nothing else."""
    run = within(out, RUN)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        known = {path.name for path in run.iterdir()} if run.is_dir() else set()
        others = sorted(known - {*OF_RUN})
        if not (out / MARK).is_file() or others:
            holds = f"{run} holds {some(others)}" if others else f"{out} is there and no demo's"
            raise TrainingError(f"{holds}; choose another folder")
        with Checkpoints(within(run, run_folder.CHECKPOINTS), reading=True):
            pass  # nobody is at work there
        if run.is_dir():
            shutil.rmtree(run)
    out.mkdir(parents=True, exist_ok=True)
    with atomic(out / MARK) as file:
        file.write(json.dumps({"report": "report.html", "run": RUN}).encode())


def _page(outcome: Outcome, classes: np.ndarray, report: parity.Report) -> str:
    accuracy = outcome.figures["test_accuracy"]
    same = np.sum(classes == outcome.outputs.argmax(-1))
    before = f"""
<p>LeNet was trained for {len(outcome.losses)} steps with jitted JAX on real MNIST digits and
finds {accuracy:.2%} of {len(classes)} test digits. The torch twin was given the same
weights: {same} of its {len(classes)} predictions are the same.</p>
<h2>Loss</h2>
<p>{_picture(pictures.loss(outcome.losses), "loss against training step")}</p>
<h2>Digits and what both backends see in them</h2>
<p>{_picture(_draw_digits(outcome, classes), "test digits with both predictions")}</p>
"""
    return report.to_html("LeNet in JAX and PyTorch", before)


def _picture(figure, alt: str) -> str:
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=150)
    code = base64.b64encode(target.getvalue()).decode()
    return f'<img alt="{alt}" src="data:image/png;base64,{code}">'


def _draw_digits(outcome: Outcome, classes: np.ndarray):
    """A row of evenly spaced test digits and one, if there are as many, of wrong ones."""
    wrong = np.flatnonzero(outcome.outputs.argmax(-1) != outcome.targets)
    wrong = wrong[:: max(1, len(wrong) * 2 // DIGITS)][: DIGITS // 2]
    even = np.linspace(0, len(classes) - 1, DIGITS - len(wrong)).astype(int)
    chosen = [*even, *wrong]
    figure = Figure((8, 3.4), layout="constrained")
    for index, axes in zip(chosen, figure.subplots(2, DIGITS // 2).flat, strict=True):
        axes.imshow(outcome.inputs[index, ..., 0], cmap="gray_r")
        axes.set_axis_off()
        verdict = "" if classes[index] == outcome.targets[index] else "  wrong"
        axes.set_title(f"is {outcome.targets[index]}{verdict}", fontsize=10)
        axes.text(0.02, -0.1, f"JAX {outcome.outputs.argmax(-1)[index]}", color=FLAX_COLOUR,
                  transform=axes.transAxes)  # fmt: skip
        axes.text(0.98, -0.1, f"torch {classes[index]}", color=TORCH_COLOUR,
                  transform=axes.transAxes, ha="right")  # fmt: skip
    return figure
