"""Pictures of a run: losses, confusions, reconstructions, samples. Needs matplotlib.

Axes: n images, h w pixels, c channels.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from flaxnets.bridge.files import atomic

FLAX_COLOUR, TORCH_COLOUR = "#1f6fb2", "#d1495b"
SHOWN = 10  # images beside each other


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic(path) as file:
        figure.savefig(file, format="png", dpi=150)


def loss(losses: list[float]) -> Figure:
    """The loss of every step, on a logarithmic axis where all are positive.

    >>> len(loss([2.0, 1.0]).axes)
    1
    """
    figure = Figure((8, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(losses) + 1), losses, color=FLAX_COLOUR, linewidth=1)
    axes.set(xlabel="training step", ylabel="loss", yscale="log" if min(losses) > 0 else "linear")
    axes.grid(alpha=0.3)
    return figure


def confusion(labels: Int[np.ndarray, " n"], classes: Int[np.ndarray, " n"], count: int) -> Figure:
    """How often each label (row) was taken for each class (column).

    >>> figure = confusion(np.array([0, 1]), np.array([0, 0]), 2)
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['1', '1']
    """
    table = np.zeros((count, count), int)
    np.add.at(table, (labels, classes), 1)
    figure = Figure((5, 5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.sqrt(table), cmap="Blues")
    for row, column in zip(*np.nonzero(table), strict=True):
        dark = table[row, column] > table.max() / 3
        colour = "white" if dark else "black"
        axes.text(column, row, str(table[row, column]), ha="center", va="center", color=colour)
    axes.set(xlabel="class found", ylabel="label", xticks=range(count), yticks=range(count))
    return figure


def reconstructions(
    images: Float[np.ndarray, "n h w c"], outputs: Float[np.ndarray, "n h w c"]
) -> Figure:
    """Evenly spaced images above what became of them."""
    chosen = np.linspace(0, len(images) - 1, min(SHOWN, len(images))).astype(int)
    figure = Figure((1.0 * len(chosen) + 0.6, 2.2), layout="constrained")
    grid = figure.subplots(2, len(chosen), squeeze=False)
    for column, index in enumerate(chosen):
        for row, picture in enumerate((images[index], outputs[index])):
            _show(grid[row, column], picture)
    for row, name in enumerate(("image", "output")):
        label = {"rotation": 90, "ha": "right", "va": "center"}
        grid[row, 0].text(-0.08, 0.5, name, transform=grid[row, 0].transAxes, **label)
    return figure


def forecast(truth: Float[np.ndarray, "n *o"], outputs: Float[np.ndarray, "n *o"]) -> Figure:
    """A series and what was forecast for it, each point from the values before it.

    >>> len(forecast(np.ones((9, 5)), np.ones((9, 5))).axes)
    1
    """
    figure = Figure((8, 3), layout="constrained")
    axes = figure.subplots()
    ahead = truth.shape[-1]
    for values, name, colour in ((truth, "true", "#888888"), (outputs, "forecast", FLAX_COLOUR)):
        following = values.reshape(len(values), -1)[:, -ahead]  # what comes right after the inputs
        axes.plot(following, label=name, color=colour, linewidth=1)
    axes.set(xlabel="test step", ylabel="value, standardised")
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def samples(images: Float[np.ndarray, "n h w c"]) -> Figure:
    """A square of generated images, always from the same codes.

    >>> len(samples(np.zeros((9, 4, 4, 1))).axes)
    9
    """
    side = int(len(images) ** 0.5)
    figure = Figure((6, 6), layout="constrained")
    for axes, image in zip(figure.subplots(side, side).flat, images, strict=False):
        _show(axes, image)
    return figure


def _show(axes, image: np.ndarray) -> None:
    if image.shape[-1] == 3:
        axes.imshow(np.clip(image, 0, 1))
    else:
        axes.imshow(image.mean(-1), cmap="gray_r", vmin=0, vmax=1)
    axes.set_axis_off()
