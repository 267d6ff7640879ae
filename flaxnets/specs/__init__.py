"""What a network is: one frozen dataclass per architecture, from which both twins are built.

The folder is the registry: `specs/x.py` defines one subclass of `Spec`, whose twins are the
class of the same name less "Spec" in `flaxnets/models/x.py` and `torch_ref/models/x.py`, and
`VARIANTS`, its named sizes. The standard library is all that is needed here.
"""

import abc
import dataclasses
import difflib
import importlib
import json
import pkgutil
import types
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from flaxnets.edge.message import printable

# What the first tokens of every vocabulary mean: nothing (behind the end of a shorter row), the
# beginning, the end, a word that the vocabulary lacks, a word that is hidden.
PAD, START, END, UNKNOWN, MASK = range(5)


MOST = 2**31 - 1  # of what is counted; an array's axes are int32 in many a library
# Wang et al. 2022, "DeepNet", arXiv 2203.00555: the deepest network that was of use.
MOST_LAYERS = 1000


class SpecError(ValueError):
    """A description of a network that cannot be built; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """One array that a network eats.

    Attributes:
        name: of the argument.
        shape: with channels last.
        axes: one letter a dimension: b batch, h w d pixels, l samples, c channels,
            t time, f features. An input with axis c is channels-first in torch.
        high: integers in [0, high) where given, real numbers where None.
        padding: of sequences that end at different places, the longest at the last one: what
            follows the end of a row of integers, and is not among those before it. A plain
            integer a row (axes "b") is such a length.

    >>> Input(name="image", shape=(2, 8, 8, 3), axes="bhwc").torch_axes
    'bchw'
    """

    name: str
    shape: tuple[int, ...]
    axes: str
    high: int | None = None
    padding: int | None = None

    @property
    def torch_axes(self) -> str:
        """The same axes in torch's order: channels, if any, behind the batch."""
        return self.axes if "c" not in self.axes else "bc" + self.axes[1:].replace("c", "")


@dataclass(frozen=True, kw_only=True)
class Spec(abc.ABC):
    """A network's description; fields are checked for their type when it is made.

    Attributes:
        task: names what the network is trained for, a file of `flaxnets.tasks`; "" for a part
            of others, which is not trained alone.
        data: names the data set that it is trained on unless another is asked for.
        on_cpu: names the variant that is trained in minutes on a CPU; "" where the default is.
    """

    task: ClassVar[str]
    data: ClassVar[str]
    on_cpu: ClassVar[str] = ""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not _has_type(value, hints[field.name]):
                wanted = _say(hints[field.name])
                raise SpecError(f"{self.name}: {field.name} {_said(value)} is not {wanted}")
            if not all(map(_in_range, value if isinstance(value, tuple) else (value,))):
                raise SpecError(
                    f"{self.name}: {field.name} {_said(value)} is out of range; use finite "
                    f"numbers, and integers up to {MOST}"
                )

    @property
    def name(self) -> str:
        """The architecture's name: the stem of the file that the spec is defined in."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def twin(self) -> str:
        """The name of the class of both twins."""
        return type(self).__name__.removesuffix("Spec")

    @property
    def outputs(self) -> str:
        """What the network returns: "logits", "probabilities" or "log_probabilities"."""
        return "logits"

    @abc.abstractmethod
    def inputs(self, batch: int) -> tuple[Input, ...]:
        """What the network eats, for a batch of that many examples."""

    def examples(self, batch: int) -> tuple[Input, ...]:
        """What the network is trained on; its inputs unless a network says otherwise."""
        return self.inputs(batch)

    def targets(self, batch: int) -> Input | None:
        """What it is trained towards: labels, or None where the examples are enough."""
        classes: int | None = getattr(self, "num_classes", None)
        if classes is None:
            return None
        return Input(name="label", shape=(batch,), axes="b", high=classes)

    def recipe(self, data: str) -> dict[str, Any]:
        """Training options, by name, that suit the network on a data set."""
        return {}

    def at_least(self, least: int, *fields: str) -> None:
        """Require that integer fields, or every entry of tuple fields, are `least` or more."""
        for field in fields:
            value = getattr(self, field)
            if min(value if isinstance(value, tuple) else (value,)) < least:
                raise SpecError(f"{self.name}: {field} {value} is too small; use {least} or more")

    def at_most(self, most: int, *fields: str) -> None:
        """Require that integer fields are `most` or less."""
        for field in fields:
            if getattr(self, field) > most:
                raise SpecError(
                    f"{self.name}: {field} {getattr(self, field)} is too large; use {most} or less"
                )

    def to_json(self) -> str:
        """The spec as text that `from_json` reads.

        >>> from_json(make("lenet", "exercise").to_json()) == make("lenet", "exercise")
        True
        """
        return json.dumps({"architecture": self.name, "spec": dataclasses.asdict(self)}, indent=2)

    def replace(self, /, **overrides: Any) -> Self:
        """The same description with some fields replaced."""
        known = [field.name for field in dataclasses.fields(self)]
        for field in overrides:
            if field not in known:
                raise SpecError(f"{self.name}: no field {_said(field)}{_nearest(field, known)}")
        return dataclasses.replace(self, **overrides)


def names() -> tuple[str, ...]:
    """All architectures, in alphabetical order."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def variants(name: str) -> dict[str, Spec]:
    """The named sizes of an architecture; "default" is the seed's own example."""
    if name not in names():
        raise SpecError(f"architecture {_said(name)} is unknown{_nearest(name, names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    (spec_class,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Spec) and value is not Spec
    ]
    return {"default": spec_class(), **module.VARIANTS}


def make(name: str, variant: str | None = None, **overrides: Any) -> Spec:
    """The spec of an architecture; see `flaxnets.spec`."""
    sizes = variants(name)
    if (variant or "default") not in sizes:
        raise SpecError(
            f"{name}: variant {_said(variant)} is unknown{_nearest(str(variant), sizes)}"
        )
    return sizes[variant or "default"].replace(**overrides)


def from_json(text: str) -> Spec:
    """The spec that `Spec.to_json` wrote.

    Raises:
        SpecError: the text is not such a description.
    """
    try:
        content = json.loads(text)
        name, given = content["architecture"], content["spec"]
        fields = {field: _tuples(value) for field, value in given.items()}
    except RecursionError:
        raise SpecError("not a spec: nested too deep; want {architecture, spec}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        said = printable(error)
        raise SpecError(f"not a spec: {said}; want {{architecture, spec}}") from None
    if not isinstance(name, str):
        raise SpecError(f"not a spec: architecture {printable(name)} is no name")
    return variants(name)["default"].replace(**fields)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value


def _said(value: Any) -> str:
    return printable(repr(value))


def _nearest(name: str, known: typing.Iterable[str]) -> str:
    """What to write instead, for the end of an error."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; use one of {', '.join(known)}"


def _has_type(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin in (types.UnionType, typing.Union):
        return any(_has_type(value, argument) for argument in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        return len(value) == len(arguments) and all(map(_has_type, value, arguments))
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    return type(value) is hint


def _in_range(value: Any) -> bool:
    return isinstance(value, str) or abs(value) <= MOST  # which NaN is not


def _say(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    return (
        f"of type {hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else hint}"
    )
