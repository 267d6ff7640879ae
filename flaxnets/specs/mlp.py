"""Multi-layer perceptron for images taken as one row of pixels, 784-500-200-100-10."""

from dataclasses import dataclass
from typing import Any, ClassVar

from flaxnets.specs import Input, Spec


@dataclass(frozen=True, kw_only=True)
class MLPSpec(Spec):
    """Three hidden layers with ReLU and a linear output.

    >>> MLPSpec().hidden_sizes
    (500, 200, 100)
    """

    task: ClassVar[str] = "classification"
    data: ClassVar[str] = "mnist"

    in_features: int = 784
    hidden_sizes: tuple[int, int, int] = (500, 200, 100)
    num_classes: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "in_features", "hidden_sizes", "num_classes")

    def inputs(self, batch: int) -> tuple[Input, ...]:
        """Rows of pixels."""
        return (Input(name="x", shape=(batch, self.in_features), axes="bf"),)

    def recipe(self, data: str) -> dict[str, Any]:
        """On Fashion-MNIST, the seed's own."""
        if data != "fashion-mnist":
            return {}
        return {"optimizer": "adam", "lr": 0.01, "batch_size": 1000, "epochs": 15}


VARIANTS = {"tiny": MLPSpec(in_features=16, hidden_sizes=(7, 6, 5), num_classes=3)}
