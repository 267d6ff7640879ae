"""Convolutional generative adversarial network.

Goodfellow et al. (2014), arXiv 1406.2661; Radford, Metz, Chintala (2015), arXiv 1511.06434.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from flaxnets.specs import Input, Spec, SpecError


@dataclass(frozen=True, kw_only=True)
class GANSpec(Spec):
    """A generator from noise to square images and a discriminator from images to a probability.

    Attributes:
        in_shape: channels, height and width of the image; the size a power of two, in pixels.
        noise_channels: numbers that an image is made from.
        width: features of the layers next to the image; they double towards the middle.

    >>> GANSpec().features
    (32, 64, 128, 256)
    """

    task: ClassVar[str] = "gan"
    data: ClassVar[str] = "mnist"

    in_shape: tuple[int, int, int] = (1, 64, 64)
    noise_channels: int = 200
    width: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "in_shape", "noise_channels", "width")
        _, height, width = self.in_shape
        if height != width or height < 8 or height & (height - 1):
            raise SpecError(
                f"gan: in_shape {self.in_shape} is no square image whose size is a power of two; "
                "use a height and width of 8, 16, 32, 64, ..."
            )

    @property
    def features(self) -> tuple[int, ...]:
        """Features of every map from the image inwards, down to 4x4 pixels."""
        halvings = self.in_shape[1].bit_length() - 3
        return tuple(self.width * 2**level for level in range(halvings))

    def inputs(self, batch: int) -> tuple[Input, ...]:
        """Noise, as an image of one pixel."""
        return (Input(name="noise", shape=(batch, 1, 1, self.noise_channels), axes="bhwc"),)

    def examples(self, batch: int) -> tuple[Input, ...]:
        """Real images between 0 and 1."""
        channels, height, width = self.in_shape
        return (Input(name="image", shape=(batch, height, width, channels), axes="bhwc"),)

    def recipe(self, data: str) -> dict[str, Any]:
        """Adam with the betas of Radford et al. and five times their rate, for short runs."""
        return {"optimizer": "adam", "lr": 1e-3, "betas": (0.5, 0.999)}


VARIANTS = {
    "tiny": GANSpec(in_shape=(2, 16, 16), noise_channels=5, width=3),
    "colour": GANSpec(in_shape=(3, 64, 64)),
}
