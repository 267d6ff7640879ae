"""Faults in convolutions, pooling and what rearranges feature maps."""

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets import layers
from flaxnets.bridge import Leaf
from flaxnets.layers import pooling
from flaxnets.layers.conv_transpose import _ConvTranspose
from flaxnets.layers.shape import lifted
from flaxnets.parity.mutations.mutation import Mutation, call, constructed, replaced, ruled


def _spatial_flip(call, layer, x):
    return jnp.flip(call(layer, jnp.flip(x, (1, 2))), (1, 2))


def _one_row_down(call, layer, x):
    return call(layer, jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1])


def _kernel_stopped(call, layer, x):
    kernel = layer.kernel[...]
    fixed = jax.lax.stop_gradient(kernel)
    layer.kernel[...] = fixed
    try:
        return call(layer, x)
    finally:
        layer.kernel[...] = kernel


def _mean(held, new):
    return (held + new) / 2


_count = pooling.Windows.count

MUTATIONS = (
    Mutation(
        "features flattened channel last",
        "forward",
        call(layers.Flatten, lambda call, layer, x: x.reshape(len(x), -1)),
        "flatten",
        "channels last",
        architecture="conv_net",
    ),
    Mutation(
        "flipped kernel",
        "forward",
        call(layers.Conv2d, _spatial_flip),
        "conv1",
        "flipped kernel",
    ),
    Mutation(
        "padding off by one pixel",
        "intermediates",
        call(layers.Conv2d, _one_row_down),
        "conv1",
        "shifted by 1 pixel along axis 2",
        architecture="conv_net",
    ),
    Mutation(
        "SAME padding of a strided convolution",
        "forward",
        constructed(layers.Conv2d, padding="SAME"),
        "conv",
        "SAME padding",
        "convolution",
    ),
    Mutation(
        "rows and columns of the kernel interchanged",
        "forward",
        ruled(nnx.Conv, Leaf("kernel", "weight", "o i h w -> w h i o"), Leaf("bias", "bias")),
        "conv",
        "rows and columns interchanged",
        "convolution",
    ),
    Mutation(
        "bias of a convolution missing",
        "intermediates",
        call(
            layers.Conv2d, lambda call, layer, x: call(layer, x) - lifted(layer.bias[...], x.ndim)
        ),
        "conv",
        "no bias",
        "convolution",
    ),
    Mutation(
        "kernel without its gradient",
        "gradients",
        call(layers.Conv2d, _kernel_stopped),
        "conv.weight",
        "stopped",
        "convolution",
    ),
    Mutation(
        "output of a transposed convolution one pixel off",
        "intermediates",
        call(layers.ConvTranspose2d, lambda call, layer, x: jnp.roll(call(layer, x), 1, 1)),
        "decoder.0",
        "shifted by +1 along axis 2",
        architecture="conv_autoencoder",
    ),
    Mutation(
        "kernel of a transposed convolution not flipped",
        "forward",
        call(layers.ConvTranspose2d, _spatial_flip),
        "conv",
        "flipped kernel",
        "transposed convolution",
    ),
    Mutation(
        "kernel of a transposed convolution in another layout",
        "forward",
        ruled(_ConvTranspose, Leaf("kernel", "weight", "i o h w -> w h o i"), Leaf("bias", "bias")),
        "conv",
        "rows and columns interchanged",
        "transposed convolution",
    ),
    Mutation(
        "mean in place of maximum",
        "forward",
        replaced(pooling, "first_maximum", _mean),
        "maxpool1",
        "mean in place of the maximum",
        architecture="conv_net",
    ),
    Mutation(
        "zeros of the padding win",
        "forward",
        call(layers.MaxPool2d, lambda call, layer, x: jnp.maximum(call(layer, x), 0)),
        "pool",
        "zeros that may win",
        "maximum pooling",
    ),
    Mutation(
        "last window of pooling reaches beyond the end",
        "forward",
        replaced(
            pooling.Windows,
            "count",
            lambda self, length: _count(self._replace(ceil_mode=True), length),
        ),
        "pool",
        "ceil_mode True",
        "maximum pooling",
    ),
    Mutation(
        "zeros of the padding left out of the mean",
        "forward",
        constructed(layers.AvgPool2d, count_include_pad=False),
        "pool",
        "count_include_pad False",
        "average pooling",
    ),
)
