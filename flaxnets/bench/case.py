"""One case of the benchmark: a contender on a network, in a size that suits the CPU."""

import json
from dataclasses import asdict, dataclass

from flaxnets import specs
from flaxnets.specs import Spec

BATCH = 32
SIZES = {"bert": ("mini", 8)}  # the default, of 110 million weights, takes seconds a step on a CPU
TURN = 0.3  # seconds


@dataclass(frozen=True)
class Case:
    """One contender on one network.

    Attributes:
        architecture: its name.
        contender: one of `flaxnets.bench.contenders.CONTENDERS`.
        variant: a named size of the architecture.
        batch: examples.
        turn: seconds that a turn lasts, if one dispatch does not last longer.
    """

    architecture: str
    contender: str
    variant: str = "default"
    batch: int = BATCH
    turn: float = TURN

    @property
    def spec(self) -> Spec:
        """What is built."""
        return specs.make(self.architecture, self.variant)


def of(architecture: str, contender: str) -> Case:
    """The case in the size of the benchmark: the default variant, batches of 32, but for `SIZES`.

    >>> of("bert", "flaxnets").variant, of("lenet", "flaxnets").batch
    ('mini', 32)
    """
    variant, batch = SIZES.get(architecture, ("default", BATCH))
    return Case(architecture, contender, variant, batch, TURN)


def to_json(case: Case) -> str:
    """The case as text that `from_json` reads.

    >>> from_json(to_json(of("mlp", "keras"))) == of("mlp", "keras")
    True
    """
    return json.dumps(asdict(case))


def from_json(text: str) -> Case:
    """The case that `to_json` wrote."""
    return Case(**json.loads(text))
