"""A hidden layer and an output layer, the first network of most PyTorch courses.

Rumelhart, Hinton, Williams (1986), "Learning representations by back-propagating errors".
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from flaxnets.specs import Input, Spec


@dataclass(frozen=True, kw_only=True)
class FeedForwardSpec(Spec):
    """Two linear layers with an activation between them and an optional softmax behind.

    >>> FeedForwardSpec().inputs(16)[0].shape
    (16, 100)
    """

    task: ClassVar[str] = "classification"
    data: ClassVar[str] = "digits"

    in_features: int = 100
    hidden_size: int = 200
    num_classes: int = 10
    activation: Literal["relu", "tanh", "sigmoid", "gelu", "silu"] = "relu"
    softmax: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "in_features", "hidden_size", "num_classes")

    @property
    def outputs(self) -> str:
        """Probabilities behind a softmax, logits without."""
        return "probabilities" if self.softmax else "logits"

    def inputs(self, batch: int) -> tuple[Input, ...]:
        """Vectors of features."""
        return (Input(name="x", shape=(batch, self.in_features), axes="bf"),)


VARIANTS = {
    "tiny": FeedForwardSpec(in_features=7, hidden_size=5, num_classes=3),
    "logits": FeedForwardSpec(softmax=False),
}
