"""Convolutional variational autoencoder: Kingma, Welling (2013), arXiv 1312.6114."""

from dataclasses import dataclass
from typing import Any, ClassVar

from flaxnets.specs import Input, Spec, SpecError


@dataclass(frozen=True, kw_only=True)
class VAESpec(Spec):
    """Two strided convolutions down to a normal code, two transposed ones back up.

    Attributes:
        in_shape: channels, height and width of the image; sizes in pixels.
        n_latent: numbers in the code.
        channels: features of the two convolutions.

    >>> VAESpec().feature_shape
    (64, 8, 8)
    """

    task: ClassVar[str] = "vae"
    data: ClassVar[str] = "mnist"

    in_shape: tuple[int, int, int] = (1, 32, 32)
    n_latent: int = 16
    channels: tuple[int, int] = (32, 64)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "in_shape", "n_latent", "channels")
        if min(self.in_shape[1:]) < 4:
            raise SpecError(
                f"vae: in_shape {self.in_shape} leaves no pixel after two strides of 2; "
                "use a height and width of 4 or more"
            )

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the map between convolutions and code."""
        _, height, width = self.in_shape
        return self.channels[1], height // 4, width // 4

    def inputs(self, batch: int) -> tuple[Input, ...]:
        """Images between 0 and 1."""
        channels, height, width = self.in_shape
        return (Input(name="image", shape=(batch, height, width, channels), axes="bhwc"),)

    def recipe(self, data: str) -> dict[str, Any]:
        """A rate that shows digits after a few hundred steps."""
        return {"optimizer": "adam", "lr": 2e-3}


VARIANTS = {
    "tiny": VAESpec(in_shape=(2, 10, 13), n_latent=3, channels=(4, 5)),
    "colour": VAESpec(in_shape=(3, 32, 32), n_latent=32),
}
