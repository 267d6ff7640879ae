"""Conv2DNet: the pattern of LeCun et al. (1998). Axes: b batch, x every spatial axis, c channels.

It is named for images and takes signals and volumes as well.
"""

from flax import nnx
from jaxtyping import Array, Float

from flaxnets import layers
from flaxnets.specs.conv_net import Conv2DNetSpec

CONVS = {1: layers.Conv1d, 2: layers.Conv2d, 3: layers.Conv3d}
POOLS = {1: layers.MaxPool1d, 2: layers.MaxPool2d, 3: layers.MaxPool3d}


class Conv2DNet(nnx.Module):
    """Strided convolution, ReLU and pooling twice, then the logits.

    The seed assigns `maxpool` twice; here it is `maxpool1` and `maxpool2`, neither with
    weights. Its dense layer fits 20x20 images only; here its size follows from the image's.

    >>> import jax.numpy as jnp
    >>> Conv2DNet(Conv2DNetSpec(), rngs=nnx.Rngs(0))(jnp.ones((32, 20, 20, 3))).shape
    (32, 10)
    """

    def __init__(self, spec: Conv2DNetSpec, *, rngs: nnx.Rngs) -> None:
        conv, pool = CONVS[spec.spatial_dims], POOLS[spec.spatial_dims]
        first, second = spec.channels
        self.conv1 = conv(spec.in_channels, first, 5, stride=2, padding=2, rngs=rngs)
        self.relu = layers.ReLU()
        self.maxpool1 = pool(2)
        self.conv2 = conv(first, second, 2, stride=2, padding=1, rngs=rngs)
        self.maxpool2 = pool(2)
        self.flatten = layers.Flatten()
        self.output = layers.Linear(spec.flat_size, spec.num_classes, rngs=rngs)

    def __call__(self, image: Float[Array, "b *x c"]) -> Float[Array, "b classes"]:
        x = self.maxpool1(self.relu(self.conv1(image)))
        x = self.maxpool2(self.relu(self.conv2(x)))
        x = self.flatten(x)
        return self.output(x)
