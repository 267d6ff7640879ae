"""A training run leaves its files behind, and they hold what was trained."""

import json

import numpy as np
import pytest

import flaxnets
from flaxnets import bridge, data, specs, training
from flaxnets.run import Recipe, train
from flaxnets.training.loop import TrainingError

SPEC = flaxnets.spec("lenet", image_size=16)
RECIPE = Recipe(data="digits", steps=30, batch_size=32, lr=3e-3)


@pytest.mark.parametrize("backend", ["flax", "torch"])
def test_files(tmp_path, backend):
    """Spec, a line a step, and weights that give the same predictions in Flax."""
    recipe = Recipe(**{**vars(RECIPE), "backend": backend})
    outcome = train(SPEC, recipe, tmp_path / "run")
    spec = specs.from_json((tmp_path / "run" / "spec.json").read_text())
    assert spec == SPEC
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines] == [*range(1, 31), 30]
    assert lines[-1]["test_accuracy"] == outcome.accuracy
    assert outcome.losses[-1] < outcome.losses[0]
    model = flaxnets.build(spec, seed=9)
    bridge.load(model, tmp_path / "run" / "model.safetensors")
    classes = training.predict(model, outcome.test_inputs).argmax(-1)
    np.testing.assert_array_equal(classes, outcome.predictions)


def test_repeatable(tmp_path):
    """The same seed gives the same run, bit for bit."""
    first, second = (train(SPEC, RECIPE, tmp_path / name) for name in "ab")
    assert first.losses == second.losses
    weights = [bridge.read(tmp_path / name / "model.safetensors") for name in "ab"]
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][name])


def test_folder_in_use(tmp_path):
    """A folder that holds something is refused, and keeps it."""
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(TrainingError, match="is there and not empty; choose another"):
        train(SPEC, RECIPE, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_too_many_classes(tmp_path):
    """Labels that the network has no output for are refused before anything is written."""
    spec = flaxnets.spec("lenet", image_size=16, num_classes=4)
    with pytest.raises(data.DataError, match="digits has 10 classes but num_classes is 4"):
        train(spec, RECIPE, tmp_path / "run")
    assert not (tmp_path / "run").exists()
