"""LeNet: LeCun, Bottou, Bengio, Haffner (1998). Axes: b batch, h w pixels, c channels."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from flaxnets.layers import Conv2d, Flatten, Linear, MaxPool2d, activation
from flaxnets.specs.lenet import LeNetSpec


class LeNet(nnx.Module):
    """Convolution, ReLU and pooling twice, then three dense layers.

    The seed imports `torch.functional` where it means `torch.nn.functional`.

    >>> import jax.numpy as jnp
    >>> LeNet(LeNetSpec(), rngs=nnx.Rngs(0))(jnp.ones((2, 32, 32, 1))).shape
    (2, 10)
    """

    def __init__(self, spec: LeNetSpec, *, rngs: nnx.Rngs) -> None:
        self.conv1 = Conv2d(spec.in_channels, spec.channels[0], spec.kernel_sizes[0], rngs=rngs)
        self.pool1 = MaxPool2d(2)
        self.conv2 = Conv2d(spec.channels[0], spec.channels[1], spec.kernel_sizes[1], rngs=rngs)
        self.pool2 = MaxPool2d(2)
        self.flatten = Flatten()
        self.fc1 = Linear(spec.flat_size, spec.dense_sizes[0], rngs=rngs)
        self.act1 = activation(spec.dense_activation)
        self.fc2 = Linear(spec.dense_sizes[0], spec.dense_sizes[1], rngs=rngs)
        self.act2 = activation(spec.dense_activation)
        self.fc3 = Linear(spec.dense_sizes[1], spec.num_classes, rngs=rngs)

    def __call__(self, image: Float[Array, "b h w c"]) -> Float[Array, "b classes"]:
        x = self.pool1(jax.nn.relu(self.conv1(image)))
        x = self.pool2(jax.nn.relu(self.conv2(x)))
        x = self.flatten(x)
        x = self.act1(self.fc1(x))
        x = self.act2(self.fc2(x))
        return self.fc3(x)
