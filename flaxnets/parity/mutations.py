"""Faults planted on purpose: a suite that lets one pass has a hole.

Each replaces a piece of the Flax side for a moment, as a slip of the pen would.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxnets import layers
from flaxnets.bridge import Leaf, convert, rules
from flaxnets.layers import linear, pooling
from flaxnets.models import vae
from flaxnets.parity.architectures import check_architecture
from flaxnets.parity.report import Report


@dataclass(frozen=True)
class Mutation:
    """A fault, and the check that has to see it.

    Attributes:
        name: of the fault.
        check: from `CHECKS`.
        plant: a context in which the fault is there.
        architecture: that shows it.
        overrides: of that architecture's tiny spec.
    """

    name: str
    check: str
    plant: Callable[[], AbstractContextManager]
    architecture: str = "lenet"
    overrides: dict[str, Any] = field(default_factory=dict)

    def run(self) -> Report:
        """The report of the check while the fault is there."""
        with self.plant():
            return check_architecture(self.architecture, "tiny", [self.check], **self.overrides)


def _call(layer: type, fault: Callable) -> Callable[[], AbstractContextManager]:
    """A layer whose call is `fault(call, layer, x)`."""
    original = layer.__call__
    return lambda: mock.patch.object(layer, "__call__", lambda s, x: fault(original, s, x))


def _replaced(place: Any, name: str, fault: Any) -> Callable[[], AbstractContextManager]:
    return lambda: mock.patch.object(place, name, fault)


def _spatial_flip(call, layer, x):
    return jnp.flip(call(layer, jnp.flip(x, (1, 2))), (1, 2))


def _one_row_down(call, layer, x):
    return call(layer, jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1])


def _only_when_traced(call, layer, x):
    return call(layer, x * 1.001 if isinstance(x, jax.core.Tracer) else x)


def _rounded(call, layer, x):
    return call(layer, x.astype(jnp.bfloat16).astype(x.dtype) if x.dtype == jnp.float32 else x)


def _called_back(call, layer, x):
    total = jax.lax.stop_gradient(x.sum())
    return call(layer, x) + 0 * jax.pure_callback(lambda total: total, total, total)


def _zero_vectors(fan_in):
    uniform = _uniform_fan_in(fan_in)
    return lambda key, shape, *more: uniform(key, shape, *more) * (len(shape) > 1)


def _small_epsilon(self, num_features, eps=1e-6, *more, **options):
    _batch_norm(self, num_features, eps, *more, **options)


def _through_half(array, pattern):
    arranged = _arrange(array, pattern)
    return arranged.astype(np.float16).astype(array.dtype)


def _biased_variance(call, layer, x):
    before, output = layer.running_var[...], call(layer, x)
    if not layer.use_running_average:
        n = x.size // x.shape[-1]
        step = layer.running_var[...] - (1 - layer.momentum) * before
        layer.running_var[...] = (1 - layer.momentum) * before + step * (n - 1) / n
    return output


def _scaled_in_training(call, layer, x):
    return call(layer, x) if layer.use_running_average else call(layer, x) * (1 + 1e-6)


_uniform_fan_in = linear.uniform_fan_in
_arrange = convert._arrange
_batch_norm = layers.BatchNorm2d.__init__
_sample_z = vae.VAE.sample_z
_jit = jax.jit

MUTATIONS = (
    Mutation(
        "features flattened channel last",
        "forward",
        _call(layers.Flatten, lambda call, layer, x: x.reshape(len(x), -1)),
    ),
    Mutation("flipped kernel", "forward", _call(layers.Conv2d, _spatial_flip)),
    Mutation("padding off by one pixel", "intermediates", _call(layers.Conv2d, _one_row_down)),
    Mutation(
        "mean in place of maximum",
        "forward",
        _replaced(pooling, "first_maximum", lambda held, new: (held + new) / 2),
    ),
    Mutation(
        "missing bias",
        "forward",
        _call(layers.Linear, lambda call, layer, x: call(layer, x) - layer.bias[...]),
    ),
    Mutation(
        "tanh GELU",
        "forward",
        _call(layers.GELU, lambda call, layer, x: jax.nn.gelu(x, approximate=True)),
        architecture="feedforward",
        overrides={"activation": "gelu"},
    ),
    Mutation(
        "softmax over the batch",
        "intermediates",
        _call(layers.Softmax, lambda call, layer, x: jax.nn.softmax(x, axis=0)),
        architecture="feedforward",
    ),
    Mutation(
        "gradient stopped",
        "gradients",
        _call(layers.Linear, lambda call, layer, x: call(layer, jax.lax.stop_gradient(x))),
    ),
    Mutation(
        "skipped transpose of a square matrix",
        "forward",
        lambda: mock.patch.dict(
            rules.RULES, {nnx.Linear: (Leaf("kernel", "weight"), Leaf("bias", "bias"))}
        ),
        architecture="mlp",
        overrides={"in_features": 5, "hidden_sizes": (5, 5, 5), "num_classes": 5},
    ),
    Mutation(
        "weights carried in half precision",
        "round_trip",
        _replaced(convert, "_arrange", _through_half),
    ),
    Mutation(
        "normal in place of uniform initial weights",
        "initialisation",
        _replaced(linear, "uniform_fan_in", lambda fan_in: nnx.initializers.normal(fan_in**-0.5)),
        architecture="feedforward",
        overrides={"hidden_size": 50},
    ),
    Mutation(
        "zero initial biases",
        "initialisation",
        _replaced(linear, "uniform_fan_in", _zero_vectors),
    ),
    Mutation(
        "biased running variance",
        "buffers",
        _call(layers.BatchNorm2d, _biased_variance),
        architecture="vae",
    ),
    Mutation(
        "epsilon of normalisation 1e-6",
        "forward",
        _replaced(layers.BatchNorm2d, "__init__", _small_epsilon),
        architecture="vae",
    ),
    Mutation(
        "wrong scale of batch statistics",
        "forward_train",
        _call(layers.BatchNorm2d, _scaled_in_training),
        architecture="gan",
    ),
    Mutation(
        "variance in place of standard deviation",
        "forward_train",
        _replaced(
            vae.VAE,
            "sample_z",
            lambda self, mean, logvar, rngs: (
                mean + jnp.exp(logvar) * jax.random.normal(rngs(), mean.shape, mean.dtype)
            ),
        ),
        architecture="vae",
    ),
    Mutation(
        "noise of another key",
        "forward_train",
        _replaced(
            vae.VAE,
            "sample_z",
            lambda self, mean, logvar, rngs: _sample_z(self, mean, logvar, rngs=rngs.fork()),
        ),
        architecture="vae",
    ),
    Mutation(
        "slope of LeakyReLU 0.02",
        "gradients",
        _replaced(layers.LeakyReLU, "__call__", lambda self, x: jax.nn.leaky_relu(x, 0.02)),
        architecture="gan",
    ),
    Mutation(
        "output of a transposed convolution one pixel off",
        "intermediates",
        _call(layers.ConvTranspose2d, lambda call, layer, x: jnp.roll(call(layer, x), 1, 1)),
        architecture="conv_autoencoder",
    ),
    Mutation("other numbers under jit", "compiled", _call(layers.Linear, _only_when_traced)),
    Mutation("call to the host", "lowering", _call(layers.Linear, _called_back)),
    Mutation(
        "state that is not donated",
        "lowering",
        _replaced(jax, "jit", lambda function, **options: _jit(function)),
    ),
    Mutation("float32 rounded to bfloat16", "float32", _call(layers.Linear, _rounded)),
)
