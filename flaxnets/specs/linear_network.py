"""Two bare weight matrices, the network with which networks are taught from scratch.

A linear map through a hidden layer, as in Baldi, Hornik (1989), "Neural networks and principal
component analysis: learning from examples without local minima"; the example turns three
binary digits into the number that they write.
"""

from dataclasses import dataclass

from flaxnets.specs import Input, Spec


@dataclass(frozen=True, kw_only=True)
class LinearNetworkSpec(Spec):
    """Two matrix products, without bias and without activation.

    Attributes:
        in_features: of the input, one a binary digit.
        hidden_size: features between the matrices.
        out_features: logits, one a class, or numbers where `regression` is set.
        regression: whether the outputs are numbers to be met, not classes.

    >>> LinearNetworkSpec().num_classes, LinearNetworkSpec(regression=True).task
    (8, 'regression')
    """

    in_features: int = 3
    hidden_size: int = 20
    out_features: int = 8
    regression: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "in_features", "hidden_size", "out_features")

    @property
    def task(self) -> str:  # type: ignore[override]
        """Classification, or regression where the spec wants it."""
        return "regression" if self.regression else "classification"

    @property
    def data(self) -> str:  # type: ignore[override]
        """The numbers that three bits write; beside them, for regression, how many are ones."""
        return "binary-sums" if self.regression else "binary"

    @property
    def num_classes(self) -> int:
        """One class an output."""
        return self.out_features

    def inputs(self, batch: int) -> tuple[Input, ...]:
        """Rows of features."""
        return (Input(name="x", shape=(batch, self.in_features), axes="bf"),)

    def targets(self, batch: int) -> Input:
        """One label a row, or one number an output where the spec wants regression."""
        if self.regression:
            return Input(name="target", shape=(batch, self.out_features), axes="bf")
        return Input(name="label", shape=(batch,), axes="b", high=self.num_classes)


VARIANTS = {
    "regression": LinearNetworkSpec(hidden_size=6, out_features=2, regression=True),
    "tiny": LinearNetworkSpec(in_features=4, hidden_size=5, out_features=3),
}
