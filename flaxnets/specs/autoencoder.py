"""Autoencoder on rows of features: two dense layers down to a code, two dense layers back.

Rumelhart, Hinton, Williams (1986), "Learning internal representations by error propagation";
Hinton, Salakhutdinov (2006), "Reducing the dimensionality of data with neural networks".
"""

from dataclasses import dataclass
from typing import ClassVar

from flaxnets.specs import Input, Spec


@dataclass(frozen=True, kw_only=True)
class AutoencoderSpec(Spec):
    """A row of features in, the same features out, through a narrow code.

    Attributes:
        input_size: features of a row.
        reduced_size: features between the row and the code, on both sides.
        encoding_size: numbers of the code.

    >>> AutoencoderSpec().inputs(32)[0].shape
    (32, 10)
    """

    task: ClassVar[str] = "reconstruction"
    data: ClassVar[str] = "diabetes"

    input_size: int = 10
    reduced_size: int = 8
    encoding_size: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "input_size", "reduced_size", "encoding_size")

    def inputs(self, batch: int) -> tuple[Input, ...]:
        """Rows of features."""
        return (Input(name="x", shape=(batch, self.input_size), axes="bf"),)


VARIANTS = {"tiny": AutoencoderSpec(input_size=7, reduced_size=5, encoding_size=3)}
