"""Autoencoder on images taken as rows of pixels, dense 784-128-64-12 and back.

Hinton, Salakhutdinov (2006), "Reducing the dimensionality of data with neural networks", with
ReLU between the layers.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from flaxnets.specs import Input, Spec


@dataclass(frozen=True, kw_only=True)
class ImageAutoencoderSpec(Spec):
    """An image in, an image out with pixels between 0 and 1, through a code of few numbers.

    Attributes:
        in_shape: channels, height and width of the image, in torch's order.
        hidden_sizes: features of the two hidden layers, from the image to the code; the
            decoder has them in reverse.
        code_size: numbers of the code, none below 0.

    >>> ImageAutoencoderSpec().flat_size
    784
    """

    task: ClassVar[str] = "reconstruction"
    data: ClassVar[str] = "mnist"

    in_shape: tuple[int, int, int] = (1, 28, 28)
    hidden_sizes: tuple[int, int] = (128, 64)
    code_size: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "in_shape", "hidden_sizes", "code_size")

    @property
    def flat_size(self) -> int:
        """Features of an image taken as one row."""
        return math.prod(self.in_shape)

    def inputs(self, batch: int) -> tuple[Input, ...]:
        """Images."""
        channels, height, width = self.in_shape
        return (Input(name="image", shape=(batch, height, width, channels), axes="bhwc"),)

    def recipe(self, data: str) -> dict[str, Any]:
        """A rate that shows digits after a few hundred steps."""
        return {"optimizer": "adam", "lr": 3e-3}


VARIANTS = {
    "tiny": ImageAutoencoderSpec(in_shape=(2, 5, 4), hidden_sizes=(9, 7), code_size=6),
}
