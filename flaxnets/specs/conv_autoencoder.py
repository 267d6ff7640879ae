"""Autoencoder on images of convolutions only: two strided down, two transposed up.

Masci, Meier, Ciresan, Schmidhuber (2011), "Stacked convolutional auto-encoders for
hierarchical feature extraction", with strides where they pool.
"""

from dataclasses import dataclass
from typing import ClassVar

from flaxnets.specs import Input, Spec


@dataclass(frozen=True, kw_only=True)
class ConvAutoencoderSpec(Spec):
    """An image in, an image of the same size out with pixels between 0 and 1.

    Attributes:
        in_shape: channels, height and width of the image, in torch's order; any will do.
        channels: features of the two convolutions, the second of which gives the code.

    >>> ConvAutoencoderSpec().sizes, ConvAutoencoderSpec().output_paddings
    (((28, 28), (14, 14), (7, 7)), ((1, 1), (1, 1)))
    """

    task: ClassVar[str] = "reconstruction"
    data: ClassVar[str] = "mnist"

    in_shape: tuple[int, int, int] = (1, 28, 28)
    channels: tuple[int, int] = (16, 32)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "in_shape", "channels")

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of the image, of the first map and of the code, in pixels."""
        _, height, width = self.in_shape
        sizes = [(height, width)]
        for _ in self.channels:
            height, width = (height + 1) // 2, (width + 1) // 2  # kernel 3, stride 2, padding 1
            sizes.append((height, width))
        return tuple(sizes)

    @property
    def output_paddings(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns that each transposed convolution adds, in the order of the decoder.

        It makes 2 n - 1 pixels of n, and one more where the size to come back to is even.
        """
        return tuple((1 - height % 2, 1 - width % 2) for height, width in self.sizes[-2::-1])

    def inputs(self, batch: int) -> tuple[Input, ...]:
        """Images."""
        channels, height, width = self.in_shape
        return (Input(name="image", shape=(batch, height, width, channels), axes="bhwc"),)


# 10x9 pixels become 5x5 and 3x3: both kinds of size on the way back.
VARIANTS = {"tiny": ConvAutoencoderSpec(in_shape=(2, 10, 9), channels=(3, 4))}
