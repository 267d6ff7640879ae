"""Pictures: whole PNG files, of every kind, also of few images and of one channel or more."""

import numpy as np
import pytest

from flaxnets import pictures

RNG = np.random.default_rng(0)
FIGURES = {
    "loss": lambda: pictures.loss([3.0, 2.0, 1.5]),
    "negative loss": lambda: pictures.loss([3.0, -2.0]),
    "confusion": lambda: pictures.confusion(np.arange(10), np.arange(10)[::-1].copy(), 10),
    "grey": lambda: pictures.reconstructions(*RNG.random((2, 20, 8, 8, 1))),
    "colour": lambda: pictures.reconstructions(*RNG.random((2, 3, 8, 8, 3))),
    "forecast": lambda: pictures.forecast(*RNG.random((2, 20, 5))),
    "samples": lambda: pictures.samples(RNG.random((64, 8, 8, 1))),
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
