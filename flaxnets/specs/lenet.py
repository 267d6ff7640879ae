"""LeNet: convolution and pooling twice, then three dense layers.

LeCun, Bottou, Bengio, Haffner (1998), "Gradient-based learning applied to document
recognition"; here as PyTorch's introduction teaches it, with ReLU, maximum pooling and a
3x3 second kernel.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from flaxnets.specs import Input, Spec, SpecError


@dataclass(frozen=True, kw_only=True)
class LeNetSpec(Spec):
    """A square image in, one logit a class out; every size in between is derived.

    Attributes:
        image_size: height and width of the image, in pixels.
        channels: features of the two convolutions.
        kernel_sizes: of the two convolutions, in pixels.
        dense_sizes: features of the two hidden dense layers.
        dense_activation: behind each hidden dense layer.

    >>> LeNetSpec().feature_size, LeNetSpec().flat_size
    (6, 576)
    """

    task: ClassVar[str] = "classification"
    data: ClassVar[str] = "mnist"

    image_size: int = 32
    in_channels: int = 1
    channels: tuple[int, int] = (6, 16)
    kernel_sizes: tuple[int, int] = (5, 3)
    dense_sizes: tuple[int, int] = (120, 84)
    dense_activation: Literal["relu", "tanh"] = "relu"
    num_classes: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "in_channels", "channels", "kernel_sizes", "dense_sizes", "num_classes")
        if self.feature_size < 1:
            first, second = self.kernel_sizes
            least = 2 * (second + 1) + first - 1
            raise SpecError(
                f"lenet: image_size {self.image_size} leaves no pixel after pool2; "
                f"use {least} or more"
            )

    @property
    def feature_size(self) -> int:
        """Height and width of the last feature map, in pixels."""
        size = self.image_size
        for kernel in self.kernel_sizes:
            size = (size - kernel + 1) // 2
        return size

    @property
    def flat_size(self) -> int:
        """Features that enter the first dense layer."""
        return self.channels[1] * self.feature_size**2

    def inputs(self, batch: int) -> tuple[Input, ...]:
        """Square images."""
        shape = (batch, self.image_size, self.image_size, self.in_channels)
        return (Input(name="image", shape=shape, axes="bhwc"),)


VARIANTS = {
    "exercise": LeNetSpec(
        channels=(9, 25), kernel_sizes=(3, 4), dense_sizes=(540, 54), dense_activation="tanh"
    ),
    "tiny": LeNetSpec(
        image_size=18, in_channels=2, channels=(3, 4), dense_sizes=(7, 6), num_classes=5
    ),
}
