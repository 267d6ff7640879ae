"""A planted fault, the check that has to see it, and ways of planting one."""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest import mock

import jax

from flaxnets.bridge import Leaf, TorchOnly, rules
from flaxnets.parity.architectures import check_architecture
from flaxnets.parity.mutations import chain
from flaxnets.parity.proof import check
from flaxnets.parity.row import Row

Plant = Callable[[], AbstractContextManager]


class Caught(NamedTuple):
    """What became of a fault.

    Attributes:
        name: of the fault.
        caught: whether the check failed and named the right place.
        by: the check.
        place: that the report points at.
        cause: that it gives.
    """

    name: str
    caught: bool
    by: str
    place: str
    cause: str


@dataclass(frozen=True)
class Mutation:
    """A fault, and the check that has to see it.

    Attributes:
        name: of the fault.
        check: from `CHECKS`.
        plant: a context in which the fault is there.
        place: that the report has to point at.
        cause: a part of the cause that it has to give.
        architecture: that shows it, or a chain of layers from `chain.CHAINS`.
        overrides: of the architecture's tiny spec.
        methods: of training, for the check `trajectory`.
    """

    name: str
    check: str
    plant: Plant
    place: str
    cause: str = ""
    architecture: str = "lenet"
    overrides: dict[str, Any] = field(default_factory=dict)
    methods: tuple[str, ...] = ("adam",)

    def row(self) -> Row:
        """The row of the check while the fault is there."""
        with self.plant():
            if self.architecture in chain.CHAINS:
                flax, twin, inputs = chain.CHAINS[self.architecture]()
                report = check(
                    flax, twin, inputs, [self.check], name=self.architecture, methods=self.methods
                )
            else:
                report = check_architecture(
                    self.architecture, "tiny", [self.check], methods=self.methods, **self.overrides
                )
        return report.rows[0]

    def run(self) -> Caught:
        """Plant the fault, run the check, and see whether it points at the fault."""
        row = self.row()
        right = not row.passed and row.place == self.place and self.cause in row.cause
        return Caught(self.name, right, row.check, row.place, row.cause)


def call(layer: type, fault: Callable) -> Plant:
    """A layer whose call is `fault(call, layer, *args)`."""
    original: Any = layer.__call__

    def faulty(self, *args, **kwargs):
        return fault(lambda layer, *given: original(layer, *given, **kwargs), self, *args)

    def signed(self, x, *, rngs=None):
        return fault(lambda layer, x: original(layer, x, rngs=rngs), self, x)

    options = inspect.signature(original).parameters
    plain = "rngs" in options and "lengths" not in options
    return lambda: mock.patch.object(layer, "__call__", signed if plain else faulty)


def replaced(place: Any, name: str, fault: Any) -> Plant:
    """An attribute of a class or module that is `fault`."""
    return lambda: mock.patch.object(place, name, fault)


def untraced(place: Any, name: str, fault: Any) -> Plant:
    """As `replaced`, of what JAX keeps traced: neither the right one nor the fault may stay."""

    @contextmanager
    def enter():
        jax.clear_caches()
        try:
            with mock.patch.object(place, name, fault):
                yield
        finally:
            jax.clear_caches()

    return enter


def constructed(layer: type, **options: Any) -> Plant:
    """A layer whose constructor is given other options than those that it was called with."""
    original = layer.__init__  # type: ignore[misc]

    def init(self, *args, **kwargs):
        original(self, *args, **kwargs)
        for name, value in options.items():
            setattr(self, name, value)

    return lambda: mock.patch.object(layer, "__init__", init)


def ruled(layer: type, *leaves: Leaf | TorchOnly) -> Plant:
    """Another bridge rule for a layer."""
    return lambda: mock.patch.dict(rules.RULES, {layer: leaves})
