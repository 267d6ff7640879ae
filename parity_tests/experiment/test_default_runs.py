"""Runs by the networks' own recipes beat what a trivial guess reaches, clearly."""

from pathlib import Path

import pytest

import flaxnets
from flaxnets import tasks
from flaxnets.experiment.recipe import Recipe
from flaxnets.experiment.run import train

MANUAL = Path(__file__).parents[2] / ".docs" / "manual" / "training.md"
# Those that take some seconds; the manual has a table of all.
QUICK = ("autoencoder", "image_autoencoder", "linear_network", "lstm_tagger", "rnn")
QUICK += ("transformer_decoder",)


@pytest.mark.parametrize("name", QUICK)
def test_beats_a_trivial_guess(tmp_path, name):
    """Little more than half of the guess's error is left at most."""
    spec = flaxnets.spec(name, flaxnets.spec(name).on_cpu or None)
    figures = train(spec, Recipe(), tmp_path / "run").figures
    figure, better = tasks.deciding(tasks.of(spec))
    (guess,) = (x for key, x in figures.items() if key.startswith(f"test_{figure}_of_the_"))
    reached = figures[f"test_{figure}"]
    errors = (1 - reached, 1 - guess) if better == "max" else (reached, guess)
    assert errors[0] < 0.55 * errors[1]


def test_table_is_whole():
    """The manual's table has the run of every architecture."""
    rows = [
        line for line in MANUAL.read_text().splitlines() if line.startswith("| `flaxnets train")
    ]
    for name in flaxnets.names():
        variant = flaxnets.spec(name).on_cpu
        wanted = f"| `flaxnets train {name}{f' --variant {variant}' if variant else ''}` |"
        assert any(row.startswith(wanted) for row in rows), wanted
