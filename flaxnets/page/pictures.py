"""Pictures of a run (losses, confusions, reconstructions, samples), and diagrams of networks.

Needs matplotlib.

Axes: n images, h w pixels, c channels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from einops import rearrange
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from flaxnets.edge.files import atomic

FLAX_COLOUR, TORCH_COLOUR = "#1f6fb2", "#d1495b"
SHOWN = 10  # images beside each other
CELL = (1.35, 0.85)  # inches of a diagram's unit
FILLS = {"data": "#ffffff", "layer": "#f3e3b5", "operation": "#e6e6e6"}
INK = "#333333"
LOOP = 0.45  # inches that a loop rises above its box, about


@dataclass(frozen=True)
class Box:
    """A box of a diagram.

    Attributes:
        x: of its centre, in units from left to right; neighbours are 1 apart.
        y: of its centre, in units from top to bottom.
        text: what is written in it.
        kind: data; a layer, which has weights; or an operation, which has none.
        width: in units.
        height: in units.
    """

    x: float
    y: float
    text: str
    kind: Literal["data", "layer", "operation"] = "layer"
    width: float = 0.8
    height: float = 0.6


@dataclass(frozen=True)
class Arrow:
    """An arrow between two boxes of a diagram, or from a box to itself.

    Attributes:
        start: the name of the box where it begins.
        end: the name of the box to which it points.
        text: what is written on it; leave room for it.
        bend: 0 is straight, 0.3 a bow to the left of its direction, -0.3 to the right.
    """

    start: str
    end: str
    text: str = ""
    bend: float = 0.0


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
    return _rows({"image": (images, _show), "output": (outputs, _show)})


def segments(
    images: Float[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, "n h w"],
    found: Int[np.ndarray, "n h w"],
) -> Figure:
    """Evenly spaced images above the labels of their pixels and those that were found.

    >>> labels = np.zeros((2, 4, 4), int)
    >>> len(segments(np.zeros((2, 4, 4, 1)), labels, labels).axes)
    6
    """
    most = max(labels.max(), found.max(), 1)

    def coloured(axes: Any, picture: np.ndarray) -> None:
        axes.imshow(np.ma.masked_less(picture, 0), cmap="viridis", vmin=0, vmax=most)
        axes.set_axis_off()

    return _rows(
        {"image": (images, _show), "label": (labels, coloured), "found": (found, coloured)}
    )


def _rows(named: Mapping[str, tuple[np.ndarray, Callable[[Any, np.ndarray], None]]]) -> Figure:
    """Evenly spaced pictures of several kinds, a row for each, and what draws them."""
    count = len(next(iter(named.values()))[0])
    chosen = np.linspace(0, count - 1, min(SHOWN, count)).astype(int)
    figure = Figure((1.0 * len(chosen) + 0.6, 1.1 * len(named)), layout="constrained")
    grid = figure.subplots(len(named), len(chosen), squeeze=False)
    for row, (name, (pictures, show)) in enumerate(named.items()):
        for column, index in enumerate(chosen):
            show(grid[row, column], pictures[index])
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
    axes.set(xlabel="test step", ylabel="standardised")
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def samples(images: Float[np.ndarray, "n h w c"]) -> Figure:
    """A square of generated images, always from the same codes.

    >>> samples(np.zeros((9, 4, 4, 1))).axes[0].images[0].get_size()
    (14, 14)
    """
    side = int(len(images) ** 0.5)
    white = 1 if images.shape[-1] == 3 else 0
    gap = max(1, images.shape[1] // 16)
    framed = np.pad(
        images[: side * side], ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=white
    )
    canvas = rearrange(framed, "(r s) h w c -> (r h) (s w) c", r=side)
    figure = Figure((6, 6), layout="constrained")
    _show(figure.subplots(), canvas[:-gap, :-gap])
    return figure


def diagram(boxes: Mapping[str, Box], arrows: Sequence[Arrow]) -> Figure:
    """A network as boxes and arrows, as large as it has to be.

    Args:
        boxes: by the names that arrows use.
        arrows: from box to box; one from a box to itself is a loop above it.

    >>> image = {"x": Box(0, 0, "image", "data"), "conv1": Box(1, 0, "5x5")}
    >>> [text.get_text() for text in diagram(image, [Arrow("x", "conv1", "28x28")]).axes[0].texts]
    ['image', '5x5', '28x28']
    """
    at = {name: np.multiply((box.x, box.y), CELL) for name, box in boxes.items()}  # inches
    half = {name: np.multiply((box.width, box.height), CELL) / 2 for name, box in boxes.items()}
    reached = [
        corner for name in boxes for corner in (at[name] - half[name], at[name] + half[name])
    ]
    figure = Figure(facecolor="white")
    figure.set_layout_engine("none")  # whatever the style says
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    patches = {}
    for name, box in boxes.items():
        left, top = at[name] - half[name]
        wide, high = 2 * half[name]
        patches[name] = FancyBboxPatch(
            (left, top),
            wide,
            high,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=FILLS[box.kind],
            edgecolor=INK,
            zorder=2,
        )
        axes.add_patch(patches[name])
        written: dict[str, Any] = {"ha": "center", "va": "center", "color": INK}
        x, y = at[name]
        axes.text(x, y, box.text, fontsize=9, zorder=3, **written)
    for arrow in arrows:
        start, end, bend = at[arrow.start], at[arrow.end], arrow.bend
        outlines: dict[str, Any] = {"patchA": patches[arrow.start], "patchB": patches[arrow.end]}
        if arrow.start == arrow.end:
            wide, high = half[arrow.start]
            start, end = start + np.array((wide / 2, -high)), end - np.array((wide / 2, high))
            bend = -2 * LOOP / wide
            outlines = {"patchA": None, "patchB": None}
        across, down = end - start
        middle = (start + end) / 2 + np.array((down, -across)) * bend / 2
        axes.add_patch(
            FancyArrowPatch(
                (start[0], start[1]),
                (end[0], end[1]),
                connectionstyle=f"arc3,rad={-bend}",
                arrowstyle="-|>",
                mutation_scale=10,
                shrinkA=0,
                shrinkB=1,
                color=INK,
                zorder=1,
                **outlines,
            )
        )
        if arrow.text:
            back = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            x, y = middle
            axes.text(x, y, arrow.text, fontsize=8, zorder=4, bbox=back, **written)
        reached += [middle - 0.1, middle + 0.1]
    low, high = np.min(reached, 0) - 0.15, np.max(reached, 0) + 0.15
    axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]))
    figure.set_size_inches(high - low)
    return figure


def _show(axes, image: np.ndarray) -> None:
    if image.shape[-1] == 3:
        axes.imshow(np.clip(image, 0, 1))
    else:
        axes.imshow(image.mean(-1), cmap="gray_r", vmin=0, vmax=1)
    axes.set_axis_off()
