"""The page of a run and the files that the run has left: every figure and curve is there."""

import base64
import json
import math
import re

import pytest
from hypothesis import strategies as st

from flaxnets.experiment import report
from flaxnets.training.loop import TrainingError
from parity_tests import fuzz

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mP8/x8AAwMCAO+ip1sAAAAASUVORK5CYII="
)
RUN = {
    "name": "lenet",
    "backend": "torch",
    "command": "flaxnets train lenet --steps 40",
    "recipe": {"optimizer": "adam", "lr": 0.001, "betas": [0.9, 0.98], "data_dir": None},
    "versions": {"jax": "0.10.1"},
    "hardware": {"platform": "cpu", "devices": "1 x cpu"},
    "time_to_first_step": 5.75,
    "engine": {"dispatch": [32, "scan"]},
    "attention": ["xla"],
    "resumed": [10, 20],
    "backends": [[0, "flax"], [20, "torch"]],
}


def _lines():
    for step in range(1, 41):
        yield {
            "step": step,
            "loss": 100 / step,
            "accuracy": step / 50,
            "lr": 1e-3,
            "seconds": 3 + step / 4,
        }
        if step % 10 == 0:
            yield {"step": step, "eval_accuracy": step / 60, "eval_loss": 110 / step}
    yield {"step": 40, "test_accuracy": 0.824, "test_accuracy_of_the_commonest_label": 0.1}


@pytest.fixture
def folder(tmp_path):
    """A run's folder with all that a run may leave."""
    folder = tmp_path / "run"
    folder.mkdir()
    spec = {"architecture": "lenet", "spec": {"channels": [6, 16]}}
    (folder / "spec.json").write_text(json.dumps(spec))
    (folder / "run.json").write_text(json.dumps(RUN))
    _write(folder, _lines())
    (folder / "confusion.png").write_bytes(PNG)
    (folder / "loss.png").write_bytes(PNG)
    (folder / "examples.txt").write_text("<one> -> two (right)\n")
    return folder


def _write(folder, lines):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_best_weights(folder):
    """Figures of the best weights are told apart from those of the last step."""
    assert "Figures and weights are those" not in report.page(folder)
    *lines, last = _lines()
    _write(folder, [*lines, {**last, "step": 30}])
    page = report.page(folder)
    assert "<p>Figures and weights are those after step 30 of 40, where the" in page
    assert "40 steps" in page


def test_in_a_browser(folder, browse):
    """The page complains of nothing, its pictures load, its curves have a size."""
    script = """
        const curves = [...document.querySelectorAll(".chart > svg polyline")];
        const wide = curves.filter((curve) => curve.getBoundingClientRect().width > 100).length;
        const images = [...document.images].filter((image) => image.naturalWidth === 1).length;
        const inside = document.documentElement.scrollWidth <= innerWidth;
        document.title = `${wide} curves, ${images} image, ${inside}`;
    """
    dom = browse(report.page(folder), script=script)
    # Loss and accuracy with their evaluations, the guess at the accuracy, the learning rate.
    assert "<title>6 curves, 1 image, true</title>" in dom
    assert "<td>82.40%</td><td>10.00%, the commonest label</td>" in dom


def test_content(folder):
    """What each file says is on the page, once, and as text."""
    page = report.page(folder)
    assert "<h1>lenet (torch)</h1>" in page
    assert "40 steps, 4 steps a second, 5.75 s to the first step." in page
    captions = re.findall(r"<figcaption>([^<]*?) ?<", page)
    assert captions == ["loss, logarithmic", "accuracy", "learning rate", "confusion"]
    assert "Dotted lines: resumed at step 10; resumed at step 20 in torch." in page
    assert "&lt;one&gt; -&gt; two (right)</pre>" in page
    told = {"dispatch": "32, scan", "attention": "xla", "devices": "1 x cpu"}
    for name, value in {"command": RUN["command"], **told}.items():
        assert f"<dt>{name}</dt><dd>{value}</dd>" in page
    cells = dict(re.findall(r'<th scope="row">([^<]*)</th><td>([^<]*)</td>', page))
    assert cells == {
        "accuracy": "82.40%",
        "optimizer": "adam",
        "lr": "0.001",
        "betas": "0.9, 0.98",
        "data dir": "-",
        "channels": "6, 16",
        "jax": "0.10.1",
    }
    assert page.count("<img") == 1, "the page draws the loss itself"
    assert "http" not in page, "a self-contained page fetches nothing"


def test_same_files_same_page(folder):
    """The page is a function of the folder."""
    assert report.page(folder) == report.page(folder)


def test_evaluations_are_points(folder):
    """Each evaluation is a point that says its step and value."""
    points = re.findall(r"<title>(\d+): ([\d.]+)</title>", report.page(folder))
    steps = (10, 20, 30, 40)
    wanted = [(step, 110 / step) for step in steps] + [(step, step / 60) for step in steps]
    assert points == [(str(step), f"{value:.4g}") for step, value in wanted]


def test_least(folder):
    """Spec and metrics are enough; speed and start are then read from the metrics."""
    for name in ("run.json", "confusion.png", "loss.png", "examples.txt"):
        (folder / name).unlink()
    page = report.page(folder)
    assert "<h1>lenet</h1>" in page
    assert "40 steps, 4 steps a second, 3.25 s to the first step." in page
    for absent in ("Pictures", "Examples", "Run", "Recipe", "Versions"):
        assert f"<h2>{absent}</h2>" not in page
    assert "Dotted" not in page


def test_speed_of_a_resumed_run(folder):
    """A clock that begins again does not count as time, nor its steps as taken."""
    (folder / "run.json").unlink()
    _write(folder, [{"step": s, "loss": 1.0, "seconds": 9 - s % 2 / 2} for s in (1, 2, 3, 4)])
    assert "4 steps, 2 steps a second" in report.page(folder)


def test_later_line_holds(folder):
    """Of two lines of one step, the one that a resumed run has written is drawn."""
    _write(folder, [{"step": 1, "loss": 8.0}, {"step": 2, "loss": 9.0}, {"step": 2, "loss": 7.0}])
    assert "training from 8 to 7, between 7 and 8" in report.page(folder)


def test_not_finite(folder):
    """NaN and null are gaps, also where there is nothing else."""
    _write(folder, [{"step": 1, "loss": math.nan}, {"step": 2, "loss": None, "accuracy": 0.5}])
    page = report.page(folder)
    assert "not finite: 2, first at step 1" in page
    assert "NaN" not in page


def test_no_step(folder):
    """A run that has taken none has a page all the same."""
    _write(folder, [])
    assert "No step was taken." in report.page(folder)


def test_long_run_is_small(folder):
    """50,000 steps make a page of less than a megabyte, with the one peak on it."""
    _write(folder, ({"step": s, "loss": 1 + s % 7 + 90 * (s == 777)} for s in range(1, 50_001)))
    page = report.page(folder)
    assert len(page) < 1_000_000
    assert ",10 " in page.partition("<polyline")[2], "the highest value is at the upper edge"


def test_unfinished_line(folder):
    """The last line of a run that was killed is left out; any other broken one is told of."""
    path = folder / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert ">1 step, " in report.page(folder)
    path.write_text('{"step": 1, "lo\n{"step": 2, "loss": 2.0}\n')
    page = report.page(folder)
    assert ">2 steps, " in page
    assert "<p>Damaged lines of metrics.jsonl: 1.</p>" in page
    path.write_text("[1]\n")
    assert "No step was taken." in report.page(folder)


@pytest.mark.parametrize("name", ["spec.json", "run.json"])
def test_broken_files(folder, name):
    """A broken file is named in one line."""
    (folder / name).write_text("{")
    with pytest.raises(TrainingError, match=f"{name}: not JSON"):
        report.page(folder)
    (folder / name).write_text("[]")
    with pytest.raises(TrainingError, match=f"{name}: should be an object"):
        report.page(folder)


def test_links_are_not_followed(folder, tmp_path):
    """What a link leads to outside of the folder is on no page."""
    (tmp_path / "secret").write_bytes(b"a private key")
    (folder / "key.png").symlink_to(tmp_path / "secret")
    (folder / "same.png").symlink_to("confusion.png")
    page = report.page(folder)
    assert base64.b64encode(b"a private key").decode() not in page
    assert page.count("<img") == 2
    for name in ("examples.txt", "spec.json", "run.json", "metrics.jsonl"):
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
        with pytest.raises(OSError, match="leads out of the folder"):
            report.page(folder)
        (folder / name).unlink()
        (tmp_path / name).rename(folder / name)


def test_any_structure(folder, attack):
    """Mutated in structure, a run's files make a page or one line, and nothing is written."""
    files = {name: (folder / name).read_text() for name in ("spec.json", "run.json")}
    lines = [{"step": 1, "loss": 2.0, "seconds": 0.5}, {"step": 1, "test_mse": 1.0, "eval_x": 2.0}]
    drawn = st.tuples(
        *(fuzz.mutated(json.loads(text)) for text in files.values()),
        st.lists(st.sampled_from(lines).flatmap(fuzz.mutated), max_size=3),
        st.sampled_from([*files, "metrics.jsonl"]),
    )

    def check(drawn):
        *texts, measured, which = drawn
        for (name, good), text in zip(files.items(), texts, strict=True):
            (folder / name).write_text(text if name == which else good)
        good = [json.dumps(line) for line in lines]
        (folder / "metrics.jsonl").write_text("\n".join(measured if which[0] == "m" else good))
        with fuzz.untouched(folder), fuzz.one_line(TrainingError, OSError):
            assert "</html>" in report.page(folder)

    attack("pages of run folders", drawn, check, 100)


def test_absent_files(folder, tmp_path):
    """A folder without a run is an error of the system's kind."""
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(FileNotFoundError):
        report.page(folder)
    with pytest.raises(FileNotFoundError):
        report.page(tmp_path / "nowhere")
