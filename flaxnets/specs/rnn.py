"""Recurrent network over a sequence: Elman 1990; Hochreiter, Schmidhuber 1997; Cho et al. 2014."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from flaxnets.specs import MOST_LAYERS, Input, Spec, SpecError

STEPS = 20  # of the seed's own example; the network takes any number


@dataclass(frozen=True, kw_only=True)
class RNNSpec(Spec):
    """Stacked recurrent layers and a dense layer on the last output, or on every one.

    Attributes:
        input_size: features a step.
        hidden_size: of every recurrent layer.
        num_layers: recurrent layers on top of each other.
        output_size: numbers that the dense layer gives.
        cell: of the recurrent layers: Elman's with tanh, long short-term memory, or gated.
        bidirectional: whether every layer reads the sequence backwards too.
        dropout: between recurrent layers, in training.
        output: at the last step of a sequence, or at every step.

    >>> RNNSpec().targets(8).shape
    (8, 5)
    """

    task: ClassVar[str] = "regression"
    data: ClassVar[str] = "sunspots"

    input_size: int = 10
    hidden_size: int = 32
    num_layers: int = 2
    output_size: int = 5
    cell: Literal["rnn", "lstm", "gru"] = "rnn"
    bidirectional: bool = False
    dropout: float = 0.0
    output: Literal["last", "sequence"] = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "input_size", "hidden_size", "num_layers", "output_size")
        self.at_most(MOST_LAYERS, "num_layers")
        if not 0 <= self.dropout < 1:
            raise SpecError(f"rnn: dropout {self.dropout} is out of range; use 0 to below 1")
        if self.dropout and self.num_layers == 1:
            raise SpecError(
                f"rnn: dropout {self.dropout} goes between layers and num_layers is 1; use 0 or "
                "more layers"
            )

    def inputs(self, batch: int) -> tuple[Input, ...]:
        """Sequences and how long each is."""
        shape = (batch, STEPS, self.input_size)
        return (
            Input(name="x", shape=shape, axes="btf"),
            Input(name="lengths", shape=(batch,), axes="b", high=STEPS + 1, padding=0),
        )

    def examples(self, batch: int) -> tuple[Input, ...]:
        """Sequences, all of one length."""
        return self.inputs(batch)[:1]

    def targets(self, batch: int) -> Input:
        """What follows the sequence, or follows every step."""
        steps = (STEPS,) if self.output == "sequence" else ()
        shape = (batch, *steps, self.output_size)
        return Input(name="target", shape=shape, axes="btf" if steps else "bf")

    def recipe(self, data: str) -> dict[str, Any]:
        """Few steps: the cycles of the test are higher than those that are learned."""
        return {"steps": 150} if data == "sunspots" else {}


VARIANTS = {
    "tiny": RNNSpec(input_size=3, hidden_size=4, output_size=2, bidirectional=True, dropout=0.3),
    "lstm": RNNSpec(cell="lstm"),
    "gru": RNNSpec(cell="gru"),
    "sequence": RNNSpec(input_size=3, hidden_size=6, cell="gru", output="sequence"),
}
