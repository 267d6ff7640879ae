"""Pictures: whole PNG files, of every kind, also of few images and of one channel or more."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from flaxnets.page import pictures

RNG = np.random.default_rng(0)
FIGURES = {
    "loss": lambda: pictures.loss([3.0, 2.0, 1.5]),
    "negative loss": lambda: pictures.loss([3.0, -2.0]),
    "confusion": lambda: pictures.confusion(np.arange(10), np.arange(10)[::-1].copy(), 10),
    "grey": lambda: pictures.reconstructions(*RNG.random((2, 20, 8, 8, 1))),
    "colour": lambda: pictures.reconstructions(*RNG.random((2, 3, 8, 8, 3))),
    "segments": lambda: pictures.segments(
        RNG.random((3, 8, 8, 1)), RNG.integers(-1, 3, (3, 8, 8)), RNG.integers(0, 3, (3, 8, 8))
    ),
    "forecast": lambda: pictures.forecast(*RNG.random((2, 20, 5))),
    "samples": lambda: pictures.samples(RNG.random((64, 8, 8, 1))),
    "diagram": lambda: pictures.diagram(
        {"x": pictures.Box(0, 0, "x", "data"), "rnn": pictures.Box(1, 0, "RNN")},
        [pictures.Arrow("x", "rnn"), pictures.Arrow("rnn", "rnn", "h")],
    ),
    "two channels": lambda: pictures.samples(RNG.random((4, 8, 8, 2))),
}


@pytest.mark.parametrize("name", FIGURES)
def test_picture(tmp_path, name):
    """A figure is drawn and written as a PNG that begins and ends as one."""
    pictures.save(FIGURES[name](), tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content.rstrip()[-8:-4] == b"IEND"


def test_confusion_counts():
    """Row is the label, column the class found."""
    figure = pictures.confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    shown = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert shown == {(0, 0): "1", (1, 0): "1", (1, 1): "1"}


def test_diagram_holds_all():
    """A loop and a bow stay within the figure, above and below the boxes that they join."""
    boxes = {name: pictures.Box(x, 0, name) for x, name in enumerate("abc")}
    plain = pictures.diagram(boxes, [])
    looped = pictures.diagram(boxes, [pictures.Arrow("b", "b", "h")])
    bent = pictures.diagram(boxes, [pictures.Arrow("a", "c", "x", -0.6)])
    assert looped.axes[0].get_ylim()[1] < plain.axes[0].get_ylim()[1] - 0.3  # y points down
    assert bent.axes[0].get_ylim()[0] > plain.axes[0].get_ylim()[0] + 0.2
    for figure in (looped, bent):
        figure.draw_without_rendering()
        edge = figure.axes[0].bbox
        for patch in figure.axes[0].patches:
            inside = patch.get_window_extent()
            assert inside.intervalx[0] >= edge.x0
            assert inside.intervalx[1] <= edge.x1
            assert inside.intervaly[0] >= edge.y0
            assert inside.intervaly[1] <= edge.y1


def test_notebook_style():
    """The notebooks' first two colours are those of the two backends."""
    with plt.style.context("flaxnets.page.notebook"):
        first, second = plt.rcParams["axes.prop_cycle"].by_key()["color"][:2]
    assert (first, second) == (pictures.FLAX_COLOUR, pictures.TORCH_COLOUR)


def test_diagram_in_the_notebooks_style():
    """Its layout is its own, also where the style would lay figures out, which would warn."""
    with plt.style.context("flaxnets.page.notebook"):
        figure = pictures.diagram({"x": pictures.Box(0, 0, "x")}, [])
        figure.draw_without_rendering()
    assert figure.axes[0].get_position().bounds == (0, 0, 1, 1)
