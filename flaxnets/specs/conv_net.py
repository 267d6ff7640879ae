"""A small convolutional network: convolution, ReLU and pooling twice, then one dense layer.

The pattern of LeCun, Bottou, Bengio, Haffner (1998), "Gradient-based learning applied to
document recognition", with strided convolutions, for signals, images and volumes.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from flaxnets.specs import Input, Spec, SpecError


@dataclass(frozen=True, kw_only=True)
class Conv2DNetSpec(Spec):
    """A signal, image or volume in, one logit a class out; the dense layer's size is derived.

    Attributes:
        spatial_dims: 1 for signals, 2 for images, 3 for volumes.
        image_size: of every spatial axis, in pixels.
        in_channels: 3 for red, green and blue.
        channels: features of the two convolutions.

    >>> Conv2DNetSpec().feature_size, Conv2DNetSpec().flat_size
    (1, 10)
    """

    task: ClassVar[str] = "classification"
    data: ClassVar[str] = "digits"

    spatial_dims: Literal[1, 2, 3] = 2
    image_size: int = 20
    in_channels: int = 3
    channels: tuple[int, int] = (10, 10)
    num_classes: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "in_channels", "channels", "num_classes")
        if self.feature_size < 1:
            raise SpecError(
                f"conv_net: image_size {self.image_size} leaves no pixel after maxpool2; "
                "use 7 or more"
            )

    @property
    def feature_size(self) -> int:
        """Every spatial axis of the last feature map, in pixels."""
        size = (self.image_size + 2 * 2 - 5) // 2 + 1  # conv1: kernel 5, stride 2, padding 2
        size = size // 2
        size = (size + 2 * 1 - 2) // 2 + 1  # conv2: kernel 2, stride 2, padding 1
        return size // 2

    @property
    def flat_size(self) -> int:
        """Features that enter the dense layer."""
        return self.channels[1] * self.feature_size**self.spatial_dims

    def inputs(self, batch: int) -> tuple[Input, ...]:
        """Signals, square images or cubic volumes."""
        shape = (batch, *[self.image_size] * self.spatial_dims, self.in_channels)
        axes = {1: "blc", 2: "bhwc", 3: "bdhwc"}[self.spatial_dims]
        return (Input(name="image", shape=shape, axes=axes),)


# Sizes that leave more than one pixel in front of the dense layer.
VARIANTS = {
    "1d": Conv2DNetSpec(
        spatial_dims=1, image_size=40, in_channels=2, channels=(4, 5), num_classes=6
    ),
    "3d": Conv2DNetSpec(
        spatial_dims=3, image_size=23, in_channels=2, channels=(3, 4), num_classes=5
    ),
    "tiny": Conv2DNetSpec(image_size=23, in_channels=2, channels=(3, 4), num_classes=5),
}
