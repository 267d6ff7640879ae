"""Faults in dense layers, activations, embeddings, dropout and sampling."""

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets import layers
from flaxnets.bridge import Leaf
from flaxnets.layers.shape import lifted
from flaxnets.models import vae
from flaxnets.parity.mutations.mutation import Mutation, call, constructed, replaced, ruled

SQUARE = {"in_features": 5, "hidden_sizes": (5, 5, 5), "num_classes": 5}


def _share_kept(call, layer, x):
    layer.p = 1 - layer.p
    try:
        return call(layer, x)
    finally:
        layer.p = 1 - layer.p


def _drop(fault):
    """Dropout whose call is `fault(layer, x, rngs)` in training."""

    def dropped(self, x, *, rngs=None):
        return x if self.deterministic else fault(self, x, rngs)

    return replaced(layers.Dropout, "__call__", dropped)


def _mask(layer, key, shape, dtype):
    return jax.random.bernoulli(key, jnp.float32(1 - layer.p), shape).astype(dtype)


def _step_at_zero(call, layer, x):
    return jnp.where(x >= 0, x, 0)


_sample_z = vae.VAE.sample_z

MUTATIONS = (
    Mutation(
        "missing bias",
        "forward",
        call(
            layers.Linear, lambda call, layer, x: call(layer, x) - lifted(layer.bias[...], x.ndim)
        ),
        "fc1",
        "no bias",
        architecture="mlp",
    ),
    Mutation(
        "bias added twice",
        "intermediates",
        call(
            layers.Linear, lambda call, layer, x: call(layer, x) + lifted(layer.bias[...], x.ndim)
        ),
        "linear1",
        "bias added twice",
        architecture="feedforward",
    ),
    Mutation(
        "gradient stopped",
        "gradients",
        call(layers.Linear, lambda call, layer, x: call(layer, jax.lax.stop_gradient(x))),
        "linear2",
        "stopped",
        architecture="feedforward",
    ),
    Mutation(
        "gradient summed over the batch in place of its mean",
        "gradients",
        call(
            layers.Linear,
            lambda call, layer, x: (
                (y := call(layer, x)) * len(y) - jax.lax.stop_gradient(y) * (len(y) - 1)
            ),
        ),
        "linear2",
        "the size of axis 0",
        architecture="feedforward",
        overrides={"hidden_size": 4},
    ),
    Mutation(
        "skipped transpose of a square matrix",
        "forward",
        ruled(nnx.Linear, Leaf("kernel", "weight"), Leaf("bias", "bias")),
        "fc1",
        "transposed",
        architecture="mlp",
        overrides=SQUARE,
    ),
    Mutation(
        "tanh GELU",
        "forward",
        call(layers.GELU, lambda call, layer, x: jax.nn.gelu(x, approximate=True)),
        "activation",
        "GELU by tanh",
        architecture="feedforward",
        overrides={"activation": "gelu"},
    ),
    Mutation(
        "GELU by the sigmoid of 1.702 x",
        "forward",
        call(layers.GELU, lambda call, layer, x: x * jax.nn.sigmoid(1.702 * x)),
        "act",
        "1.702",
        architecture="gelu",
    ),
    Mutation(
        "softmax over the batch",
        "intermediates",
        call(layers.Softmax, lambda call, layer, x: jax.nn.softmax(x, axis=0)),
        "softmax",
        "axis 0",
        architecture="feedforward",
    ),
    Mutation(
        "activation left out",
        "forward",
        call(layers.ReLU, lambda call, layer, x: x),
        "relu",
        "nothing in place of ReLU",
        architecture="autoencoder",
    ),
    Mutation(
        "slope of LeakyReLU 0.02",
        "gradients",
        replaced(layers.LeakyReLU, "__call__", lambda self, x: jax.nn.leaky_relu(x, 0.02)),
        "act",
        "negative_slope 0.02, not 0.2",
        "leaky relu",
    ),
    Mutation(
        "slopes of PReLU not learned",
        "forward",
        call(layers.PReLU, lambda call, layer, x: jax.nn.leaky_relu(x, 0.01)),
        "act",
        "slope 0.01",
        architecture="prelu",
    ),
    Mutation(
        "alpha of ELU 1", "forward", constructed(layers.ELU, alpha=1.0), "act", "alpha 1", "elu"
    ),
    Mutation(
        "gradient of ReLU 1 at zero",
        "gradients",
        call(layers.ReLU, _step_at_zero),
        "act",
        "kink",
        "relu at zero",
    ),
    Mutation(
        "index off by one",
        "forward",
        call(layers.Embedding, lambda call, layer, x: call(layer, (x + 1) % layer.num_embeddings)),
        "embed",
        "index + 1",
        "embedding",
    ),
    Mutation(
        "embedding scaled by sqrt(d)",
        "forward",
        call(layers.Embedding, lambda call, layer, x: call(layer, x) * layer.embedding_dim**0.5),
        "embed",
        "sqrt(d)",
        "embedding",
    ),
    Mutation(
        "padding row learns",
        "gradients",
        constructed(layers.Embedding, padding_idx=None),
        "embed.weight",
        "should be zero",
        "embedding",
    ),
    Mutation(
        "dropout keeps p in place of 1 - p",
        "forward_train",
        call(layers.Dropout, _share_kept),
        "drop",
        "not 1/(1 - p)",
        "dropout",
    ),
    Mutation(
        "dropout without its scale",
        "forward_train",
        call(layers.Dropout, lambda call, layer, x: call(layer, x) * (1 - layer.p)),
        "drop",
        "scaled by 1, not",
        "dropout",
    ),
    Mutation(
        "dropout scaled in evaluation",
        "forward",
        call(layers.Dropout, lambda call, layer, x: x * (1 - layer.p)),
        "drop",
        "smaller by the factor 0.7",
        "dropout",
    ),
    Mutation(
        "dropout left out",
        "forward_train",
        call(layers.Dropout, lambda call, layer, x: x),
        "drop",
        "after Flax's 0 draws",
        "dropout",
    ),
    Mutation(
        "dropout of whole features",
        "forward_train",
        _drop(
            lambda layer, x, rngs: (
                x * _mask(layer, rngs.dropout(), (x.shape[0], 1, x.shape[-1]), x.dtype) / 0.7
            )
        ),
        "drop",
        "draw 0",
        "dropout",
    ),
    Mutation(
        "key not folded in: dropout with the key itself",
        "forward_train",
        _drop(
            lambda layer, x, rngs: (
                x * _mask(layer, rngs.dropout.key[...], x.shape, x.dtype) / (1 - layer.p)
            )
        ),
        "drop",
        "another mask",
        "dropout",
    ),
    Mutation(
        "mask used again",
        "forward_train",
        _drop(
            lambda layer, x, rngs: (
                x
                * _mask(layer, jax.random.fold_in(rngs.dropout.key[...], 0), x.shape, x.dtype)
                / (1 - layer.p)
            )
        ),
        "two",
        "one that was used before",
        "two dropouts",
    ),
    Mutation(
        "variance in place of standard deviation",
        "forward_train",
        replaced(
            vae.VAE,
            "sample_z",
            lambda self, mean, logvar, rngs: (
                mean + jnp.exp(logvar) * jax.random.normal(rngs(), mean.shape, mean.dtype)
            ),
        ),
        "input of z_develop",
        "evaluation agrees",
        architecture="vae",
    ),
    Mutation(
        "noise of another key",
        "forward_train",
        replaced(
            vae.VAE,
            "sample_z",
            lambda self, mean, logvar, rngs: _sample_z(self, mean, logvar, rngs=rngs.fork()),
        ),
        "input of z_develop",
        "random numbers",
        architecture="vae",
    ),
)
