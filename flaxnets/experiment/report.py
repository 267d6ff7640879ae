"""A training run as one page that fetches nothing: figures, curves, pictures, recipe.

The page is a function of what the run has left in its folder, so that it can be made again.
"""

import base64
import contextlib
import html
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flaxnets import tasks
from flaxnets.edge.files import RECORD, read, within
from flaxnets.edge.message import some
from flaxnets.edge.structure import parse
from flaxnets.experiment import run_folder
from flaxnets.page import Series, chart, definitions, document, table
from flaxnets.training.loop import TrainingError

BESIDE = ("step", "seconds")  # in a line of metrics, besides what was measured
OF = "_of_"  # test_mse_of_the_mean is what the mean reaches, beside test_mse
DECADE = 10.0  # what spans at least this factor is drawn on a logarithmic axis
DRAWN_HERE = "loss.png"  # a picture of what the page draws itself
STYLE = """
.lead { font-size: 1.1rem; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
.pictures figure { margin: 0; max-width: 100%; }
.pictures img { display: block; max-height: 36rem; max-width: 100%; }
.tables { display: flex; flex-wrap: wrap; gap: 0 3rem; }
.tables > section { max-width: 100%; }
.tables td { overflow-wrap: anywhere; }
pre {
  background: var(--panel);
  border: 1px solid var(--line);
  border-radius: 6px;
  margin: 0;
  overflow-wrap: anywhere;
  padding: .6rem .9rem;
  white-space: pre-wrap;
}
"""


@dataclass
class _Metrics:
    """What `metrics.jsonl` holds, by name.

    Attributes:
        training: the value of every step, by step.
        evaluation: those of the evaluations between.
        final: the last figures.
        chosen: the step after which the weights are those of the last figures.
        seconds: since the run or its last resumption began, by step.
    """

    training: dict[str, dict[int, float]] = field(default_factory=dict)
    evaluation: dict[str, dict[int, float]] = field(default_factory=dict)
    final: dict[str, float] = field(default_factory=dict)
    chosen: int | None = None
    seconds: dict[int, float] = field(default_factory=dict)

    def add(self, line: Mapping[str, Any]) -> None:
        """Take in a line; of two with one step, as a resumed run leaves them, the later holds."""
        step = line["step"]
        if "seconds" in line:
            self.seconds[step] = line["seconds"]
        for name, value in line.items():
            number = float(value)
            if name.startswith("test_"):
                self.final[name.removeprefix("test_")] = number
                self.chosen = step
            elif name.startswith("eval_"):
                self.evaluation.setdefault(name.removeprefix("eval_"), {})[step] = number
            elif name not in BESIDE:
                self.training.setdefault(name, {})[step] = number

    @property
    def steps(self) -> int:
        """The number of the last step."""
        return max((step for values in self.training.values() for step in values), default=0)

    @property
    def speed(self) -> float | None:
        """Steps a second between the first step and the last, without the start."""
        steps, seconds = 0, 0.0
        for (step, began), (following, ended) in itertools.pairwise(sorted(self.seconds.items())):
            if ended > began:  # else the clock began again
                steps, seconds = steps + following - step, seconds + ended - began
        return steps / seconds if seconds else None


def page(folder: Path) -> str:
    """The page of a run.

    Args:
        folder: of the run: `spec.json` and `metrics.jsonl` as a run leaves them;
            `run.json`, pictures (`*.png`) and `examples.txt` where they are there. `run.json`
            may hold `name`, `backend`, `command`, `recipe`, `versions`, `hardware`,
            `time_to_first_step` (seconds), `engine` (with its `dispatch`), `attention` (the
            kernels taken), `resumed` (steps) and `backends` (pairs of a step and the backend
            from there on).

    Raises:
        TrainingError: a file of the run that is not what it should be.
        OSError: a folder or a file that cannot be read.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "spec.json").write_text('{"architecture": "lenet", "spec": {}}')
    >>> _ = (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}')
    >>> "<title>flaxnets: lenet</title>" in page(folder)
    True
    """
    try:
        spec = parse(_Spec, read(within(folder, run_folder.SPEC), RECORD), folder / run_folder.SPEC)
        there = (folder / run_folder.RUN).exists()
        run = run_folder.told(folder) if there else run_folder.Told()
    except ValueError as error:
        raise TrainingError(str(error)) from None
    measured, metrics = run_folder.metrics(folder), _Metrics()
    for line in measured.lines:
        metrics.add(line)
    damaged = f"Damaged lines of {run_folder.METRICS}: {some(measured.damaged)}."
    name = run.name or spec.architecture
    backend = run.backend
    body = [
        f'<p class="lead">{html.escape(_summary(metrics, run))}</p>',
        f"<p>{damaged}</p>" if measured.damaged else "",
        _figures(metrics),
        "<h2>Curves</h2>",
        _curves(metrics, run.resumed, dict(run.backends)),
        _pictures(folder),
        _examples(folder),
        _facts(run),
        '<div class="tables">',
        _section("Recipe", run.recipe),
        _section("Spec", spec.spec),
        _section("Versions", run.versions),
        "</div>",
    ]
    title = f"{name} ({backend})" if backend else name
    return document(title, "\n".join(filter(None, body)), STYLE)


@dataclass(frozen=True)
class _Spec:
    """What of `spec.json` is shown, of whatever network."""

    architecture: str
    spec: dict[str, Any]


def _summary(metrics: _Metrics, run: run_folder.Told) -> str:
    said = [f"{metrics.steps} step{'s' * (metrics.steps != 1)}"]
    if speed := metrics.speed:
        said.append(f"{speed:.4g} steps a second")
    first = run.time_to_first_step or metrics.seconds.get(1)
    if first is not None:
        said.append(f"{first:.3g} s to the first step")
    return ", ".join(said) + "."


def _figures(metrics: _Metrics) -> str:
    """The final figures, each beside what a trivial guess reaches, and whose weights' they are."""
    final = metrics.final
    if not final:
        return ""
    rows = []
    for name, value in final.items():
        whose, _, guess = name.partition(OF)
        if guess and whose in final:
            continue
        guesses = [
            f"{_figure(name, reached)}, {_words(other.removeprefix(name + OF))}"
            for other, reached in final.items()
            if other.startswith(name + OF)
        ]
        rows.append([_words(name), _figure(name, value), "; ".join(guesses) or "-"])
    if all(guess == "-" for _, _, guess in rows):
        rows = [row[:2] for row in rows]
    head = ["on test examples", "the network", "a trivial guess"]
    shown = f"<h2>Figures</h2>{table(head[: len(rows[0])], rows)}"
    if metrics.chosen in (None, metrics.steps):
        return shown
    return (
        f"{shown}<p>Figures and weights are those after step {metrics.chosen} of "
        f"{metrics.steps}, where the evaluation was best.</p>"
    )


def _figure(name: str, value: float) -> str:
    return f"{value:.2%}" if tasks.is_share(name) else f"{value:.5g}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _curves(metrics: _Metrics, resumed: Iterable[int], backends: Mapping[int, str | None]) -> str:
    """A chart for the loss and every other metric, the learning rate last."""
    names = dict.fromkeys([*metrics.training, *metrics.evaluation])
    names = {name: None for name in names if name.partition(OF)[0] not in names or OF not in name}
    order = sorted(names, key=lambda name: (name != "loss", name == "lr"))
    events: dict[float, str] = {
        step: f"resumed at step {step:g}" + (f" in {backends[step]}" if step in backends else "")
        for step in resumed
    }
    drawn = "".join(_curve(name, metrics, events) for name in order)
    if not drawn:
        return "<p>No step was taken.</p>"
    said = f"<p>Dotted lines: {'; '.join(events.values())}.</p>" if events else ""
    return f'{said}<div class="charts">{drawn}</div>'


def _curve(name: str, metrics: _Metrics, events: Mapping[float, str]) -> str:
    """The training curve of a metric, its evaluations and, as a level, the trivial guess."""
    series = []
    if name in metrics.training:
        series.append(Series("training", sorted(metrics.training[name].items())))
    if name in metrics.evaluation:
        points = sorted(metrics.evaluation[name].items())
        series.append(Series("evaluation", points, "circles"))
    series += _guesses(name, metrics)
    values = [y for line in series for _, y in line.points if math.isfinite(y)]
    steep = name != "lr" and not tasks.is_share(name) and min(values, default=0) > 0
    logarithmic = steep and max(values) >= DECADE * min(values)
    title = "learning rate" if name == "lr" else _words(name)
    title += ", logarithmic" if logarithmic else ""
    return chart(title, series, "step", logarithmic=logarithmic, events=events)


def _guesses(name: str, metrics: _Metrics) -> list[Series]:
    """What a trivial guess reaches: as evaluated, or else at the end."""
    for other, values in metrics.evaluation.items():
        if other.startswith(name + OF):
            guess = _words(other.removeprefix(name + OF))
            return [Series(guess, sorted(values.items()), "dashed")]
    for other, value in metrics.final.items():
        if other.startswith(name + OF):
            guess = _words(other.removeprefix(name + OF))
            ends = sorted({1, metrics.steps})
            return [Series(guess, [(step, value) for step in ends], "dashed")]
    return []


def _pictures(folder: Path) -> str:
    shown = []
    for path in sorted(folder.glob("*.png")):
        if path.name == DRAWN_HERE:
            continue
        with contextlib.suppress(OSError):  # a link to elsewhere is no picture of the run's
            code = base64.b64encode(read(within(folder, path.name))).decode()
            name = html.escape(_words(path.stem))
            shown.append(
                f"<figure><figcaption>{name}</figcaption>"
                f'<img alt="{name}" src="data:image/png;base64,{code}"></figure>'
            )
    return f'<h2>Pictures</h2><div class="pictures">{"".join(shown)}</div>' if shown else ""


def _examples(folder: Path) -> str:
    if not (folder / run_folder.EXAMPLES).exists():
        return ""
    text = read(within(folder, run_folder.EXAMPLES)).decode(errors="replace")
    return f"<h2>Examples</h2><pre>{html.escape(text.strip())}</pre>"


def _facts(run: run_folder.Told) -> str:
    facts = {"command": run.command, "attention": run.attention, "dispatch": run.engine.dispatch}
    facts |= run.hardware
    known = {name: _value(value) for name, value in facts.items() if value}
    return f"<h2>Run</h2>{definitions(known)}" if known else ""


def _section(title: str, values: Mapping[str, Any]) -> str:
    """A table of names and values, if there are any."""
    if not values:
        return ""
    rows = [[_words(name), _value(value)] for name, value in values.items()]
    return f"<section><h2>{title}</h2>{table(['name', 'value'], rows)}</section>"


def _value(value: Any) -> str:
    """A value as a reader of tables wants it.

    >>> [_value(value) for value in ([6, 16], None, True, 0.001)]
    ['6, 16', '-', 'yes', '0.001']
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(inner)}" for name, inner in value.items())
    return "-" if value is None else str(value)
