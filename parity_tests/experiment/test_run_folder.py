"""A run's folder says what it holds, also where somebody else has filled it."""

import json
import math
import os

import pytest

import flaxnets
from flaxnets import specs
from flaxnets.edge.structure import StructureError
from flaxnets.experiment import run_folder
from parity_tests import fuzz


def test_metrics(tmp_path):
    """Whole lines are read; damaged ones are counted, and one that is cut off is not."""
    lines = ['{"step": 1, "loss": 0.5}', '{"step": 2, "lo', "", '{"step": 3, "loss": null}']
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 4, "loss": 1', ""])[:-3])
    found = run_folder.metrics(tmp_path)
    assert found.lines[0] == {"step": 1, "loss": 0.5}
    assert math.isnan(found.lines[1]["loss"])
    assert found.damaged == [2, 3]


@pytest.mark.parametrize(
    "line",
    [
        *('{"loss": 1.0}', '{"step": -1}', '{"step": 1.5}', '{"step": true}', '{"step": 1e10}'),
        *('{"step": 1, "x": "1"}', '{"step": 1, "x": {}}', "[1]", "1" * 5000, "\xff\xfe"),
    ],
)
def test_damaged_line(tmp_path, line):
    """What is no line of measurements is none, and the one behind it is still read."""
    (tmp_path / "metrics.jsonl").write_text(f'{line}\n{{"step": 7}}\n', encoding="latin-1")
    assert run_folder.metrics(tmp_path) == ([{"step": 7}], [1])


def test_sweep(tmp_path):
    """Only what the run itself had begun to write goes; a user's hidden files stay."""
    kept = [".notes.markdown", ".vim.settings", ".run.json.swp", ".run.json.abcdefgh", "run.json"]
    left = [".run.json.ab_12345.unfinished", ".loss.png.zzzzzzzz.unfinished"]
    for name in kept + left:
        (tmp_path / name).write_text("x")
    (tmp_path / ".spec.json.abcdefgh.unfinished").symlink_to("run.json")
    run_folder.sweep(tmp_path)
    there = sorted(path.name for path in tmp_path.iterdir())
    assert there == sorted([*kept, ".spec.json.abcdefgh.unfinished"])


@pytest.mark.parametrize("name", ["spec.json", "run.json", "metrics.jsonl"])
def test_no_plain_file(tmp_path, name):
    """A pipe does not hang, and a link is not followed out of the folder."""
    read = {"spec": run_folder.spec_of, "run": run_folder.told, "metrics": run_folder.metrics}
    folder = tmp_path / "run"
    folder.mkdir()
    os.mkfifo(folder / name)
    with pytest.raises(OSError, match="no plain file"):
        read[name.partition(".")[0]](folder)
    (folder / name).unlink()
    (tmp_path / "outside").write_text("{}")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="leads out of the folder"):
        read[name.partition(".")[0]](folder)


def test_any_spec(tmp_path, attack):
    """A mutated spec.json is a spec that can be written again, or one line."""
    for name in ("lenet", "transformer", "conv_net"):
        good = json.loads(flaxnets.spec(name).to_json())

        def check(text):
            (tmp_path / "spec.json").write_text(text)
            with fuzz.one_line(specs.SpecError):
                found = run_folder.spec_of(tmp_path)
                assert specs.from_json(found.to_json()) == found

        attack("spec.json", fuzz.mutated(good), check, 100)


def test_any_run(tmp_path, attack):
    """A mutated run.json says what its type holds, or is refused in one line."""
    good = {
        "name": "mlp",
        "backend": "flax",
        "command": "flaxnets train mlp",
        "recipe": {"lr": 0.1, "betas": [0.9, 0.99]},
        "versions": {"jax": "1"},
        "hardware": {"cpu": "x"},
        "engine": {"dispatch": [8, "scan"]},
        "resumed": [3],
        "backends": [[0, "flax"], [3, "torch"]],
        "time_to_first_step": 0.5,
        "data": "0f",
        "finished": True,
    }

    def check(text):
        (tmp_path / "run.json").write_text(text)
        with fuzz.one_line(StructureError):
            found = run_folder.told(tmp_path)
            assert all(isinstance(step, int) and step >= 0 for step in found.resumed)
            assert found.engine.dispatch is None or found.engine.dispatch[0] >= 1

    attack("run.json", fuzz.mutated(good), check, 100)


def test_any_metrics(tmp_path, attack):
    """Mutated lines are read as numbers by name, or counted as damaged."""
    good = {"step": 3, "loss": 0.5, "accuracy": 1, "lr": None, "seconds": 0.1}

    def check(text):
        (tmp_path / "metrics.jsonl").write_text(f"{text}\n{json.dumps(good)}\n")
        found = run_folder.metrics(tmp_path)
        assert len(found.lines) + len(found.damaged) == 2
        for line in found.lines:
            assert type(line["step"]) is int
            assert all(isinstance(value, int | float) for value in line.values())

    attack("metrics.jsonl", fuzz.mutated(good), check, 100)
