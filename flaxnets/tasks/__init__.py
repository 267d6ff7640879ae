"""What networks are trained for: one file a task, which says everything of it.

The folder is the registry: `tasks/x.py` is the task of the specs whose `task` is "x"; its losses
in torch's own terms are in `torch_ref/tasks/x.py`. Nothing else names a task.

Axes: n examples, t time, k classes.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np

from flaxnets.data import Dataset
from flaxnets.edge.message import printable
from flaxnets.specs import Spec
from flaxnets.training.objective import Objective

GRID = 64  # samples that a generative network is asked for
SHOWN = 8  # examples in words

# Outputs for inputs of the given axes, in Flax's layout: of the network, or of one of its parts.
Call = Callable[[Any, Any, str | None], np.ndarray]


class Figure(NamedTuple):
    """What is known of a figure, besides its value.

    Attributes:
        better: whether the least or the largest is best; None of one that says nothing of that.
        share: it is one, and written in per cent.
    """

    better: Literal["min", "max"] | None
    share: bool = False


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a trained network did.

    Attributes:
        figures: by name, "test_" before that of the task; what a trivial guess reaches stands
            beside it as "test_..._of_...".
        outputs: for the test inputs, in Flax's layout; tokens of a network that translates.
        samples: that a generative network made, in Flax's layout.
        examples: a few of its answers in words.
    """

    figures: dict[str, float]
    outputs: np.ndarray
    samples: np.ndarray | None = None
    examples: tuple[str, ...] = ()


class Task(Protocol):
    """What every module of this folder holds.

    Attributes:
        FIGURES: of an evaluation, by name; the first decides which weights are best, if it says
            that anything is better.
    """

    FIGURES: Mapping[str, Figure]

    @property
    def objectives(self) -> Callable[..., dict[str, Objective]]:
        """The losses of a spec's network, by the part of the model that each moves ("" for all).

        Its keyword arguments are the options of a recipe that the task understands.
        """

    def evaluate(self, spec: Spec, call: Call, chosen: Dataset) -> Evaluation:
        """Figures on the test examples, and a few answers in words.

        Args:
            spec: of the network.
            call: the trained network.
            chosen: the data, as it fits the network.
        """

    def pictures(
        self, spec: Spec, inputs: Any, targets: np.ndarray, found: Evaluation
    ) -> dict[str, Any]:
        """What a person would want to see, drawn by matplotlib, by name.

        Args:
            spec: of the network.
            inputs: of the test.
            targets: of the test.
            found: for them.
        """


def names() -> tuple[str, ...]:
    """All tasks, in alphabetical order.

    >>> "classification" in names()
    True
    """
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def of(spec: Spec) -> Task:
    """The task of a network.

    >>> from flaxnets import specs
    >>> list(of(specs.make("gan")).objectives(specs.make("gan")))
    ['discriminator', 'generator']
    """
    return _named(spec.task)


def __getattr__(name: str) -> Any:
    if name not in names():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def _named(name: str) -> Task:
    return cast(Task, __getattr__(name))


def options(task: Task) -> tuple[str, ...]:
    """The options of a recipe that a task understands.

    >>> from flaxnets import specs
    >>> options(of(specs.make("lenet")))
    ('label_smoothing',)
    """
    return tuple(inspect.signature(task.objectives).parameters)[1:]


def with_option(option: str) -> tuple[str, ...]:
    """The names of the tasks that understand an option."""
    return tuple(name for name in names() if option in options(_named(name)))


def deciding(task: Task) -> tuple[str, Literal["min", "max"]] | None:
    """The figure that says which weights are best, and whether by being small or large.

    >>> from flaxnets import specs
    >>> deciding(of(specs.make("lenet"))), deciding(of(specs.make("gan")))
    (('accuracy', 'max'), None)
    """
    name, figure = next(iter(task.FIGURES.items()))
    return (name, figure.better) if figure.better else None


def is_share(name: str) -> bool:
    """Whether a figure of some task, or what a trivial guess reaches of it, is a share.

    >>> is_share("accuracy_of_the_commonest_label"), is_share("mse")
    (True, False)
    """
    return name.partition("_of_")[0] in _shares()


@functools.cache
def _shares() -> frozenset[str]:
    figures = (item for name in names() for item in _named(name).FIGURES.items())
    return frozenset(name for name, figure in figures if figure.share)


def evaluate(spec: Spec, call: Call, chosen: Dataset) -> Evaluation:
    """What a network's task makes of it; see `Task.evaluate`."""
    found = of(spec).evaluate(spec, call, chosen)
    # Words and labels may be from anybody's files, and are shown on terminals.
    return replace(found, examples=tuple(printable(x, len(x)) for x in found.examples))


def axes(spec: Spec) -> Any:
    """The axes of the examples of a network as `Call` wants them: one, or a tuple of several.

    >>> from flaxnets import specs
    >>> axes(specs.make("lenet")), axes(specs.make("bert", "tiny"))
    ('bhwc', ('bt', 'bt'))
    """
    found = tuple(given.axes for given in spec.examples(1))
    return found if len(found) > 1 else found[0]


def commonest(values: np.ndarray) -> Any:
    """The commonest value, the least of several.

    >>> int(commonest(np.array([3, 1, 3])))
    3
    """
    found, counts = np.unique(values, return_counts=True)
    return found[counts.argmax()]


def spread(count: int) -> range:
    """A few rows from everywhere.

    >>> list(spread(3)), len(spread(1000))
    ([0, 1, 2], 8)
    """
    return range(0, count, max(1, count // SHOWN))[:SHOWN]


def verdict(answer: str, truth: str) -> str:
    """Of an answer.

    >>> verdict("a", "b")
    'not b'
    """
    return "right" if answer == truth else f"not {truth}"


def word(words: tuple[str, ...], token: int) -> str:
    """What a token means; a network may have room for more than there are.

    >>> word(("a", "b"), 7)
    '<7>'
    """
    return words[token] if token < len(words) else f"<{token}>"
