"""Character network that names a word's class, one linear hidden state (PyTorch's tutorial)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from flaxnets.specs import Input, Spec

CHARACTERS = 12  # a word has in the suite; the network takes any number


@dataclass(frozen=True, kw_only=True)
class CharRNNSpec(Spec):
    """Two dense layers on character and hidden state: the next state, and the class.

    Attributes:
        n_classes: classes of words.
        input_size: different characters.
        hidden_size: of the state; with the character 185 inputs by default.

    >>> CharRNNSpec().input_size + CharRNNSpec().hidden_size
    185
    """

    task: ClassVar[str] = "classification"
    data: ClassVar[str] = "surnames"

    n_classes: int = 10
    input_size: int = 57
    hidden_size: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "n_classes", "input_size", "hidden_size")

    @property
    def outputs(self) -> str:
        """Logarithms of probabilities."""
        return "log_probabilities"

    def inputs(self, batch: int) -> tuple[Input, ...]:
        """Words as rows of zeros and a one, and how many characters each has."""
        shape = (batch, CHARACTERS, self.input_size)
        return (
            Input(name="words", shape=shape, axes="btf"),
            Input(name="lengths", shape=(batch,), axes="b", high=CHARACTERS + 1, padding=0),
        )

    def targets(self, batch: int) -> Input:
        """One class a word."""
        return Input(name="label", shape=(batch,), axes="b", high=self.n_classes)

    def recipe(self, data: str) -> dict[str, Any]:
        """Adam; the seed takes a name at a time with `--optimizer sgd --batch-size 1`."""
        return {"optimizer": "adam", "lr": 2e-3, "steps": 2000}


VARIANTS = {"tiny": CharRNNSpec(n_classes=3, input_size=5, hidden_size=7)}
