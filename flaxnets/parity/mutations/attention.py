"""Faults in attention and transformers."""

import jax.numpy as jnp
from einops import rearrange

from flaxnets import layers
from flaxnets.layers import attention
from flaxnets.layers.attention import MultiheadAttention
from flaxnets.layers.shape import lifted
from flaxnets.parity.mutations.mutation import Mutation, constructed, replaced


def _masks(change):
    """Attention whose mask is `change(mask)`."""

    def masks(self, *args, **options):
        mask, bias = _original_masks(self, *args, **options)
        return None if mask is None else change(mask), bias

    return replaced(MultiheadAttention, "_masks", masks)


def _projections(change):
    return replaced(MultiheadAttention, "_project", lambda self, *x: change(*_project(self, *x)))


def _scaled(power):
    return replaced(
        attention,
        "attention_weights",
        lambda q, *rest: _weights(q * q.shape[-1] ** power, *rest),
    )


def _without_bias(self, *x):
    biases = jnp.split(self.in_proj_bias[...], 3)
    return [y - lifted(b, y.ndim) for y, b in zip(_project(self, *x), biases, strict=True)]


def _other_heads(x, pattern, **sizes):
    return rearrange(x, pattern.replace("(h d)", "(d h)"), **sizes)


_original_masks, _project = MultiheadAttention._masks, MultiheadAttention._project
_weights = attention.attention_weights
CHAIN, LAYER = "attention", "att.layer"

MUTATIONS = (
    Mutation("mask dropped", "forward", _masks(lambda m: None), LAYER, "mask dropped", CHAIN),
    Mutation(
        "mask inverted: True taken for keep",
        "forward",
        _masks(lambda m: ~m),
        LAYER,
        "",
        CHAIN,
    ),
    Mutation("scores without their scale", "forward", _scaled(0.5), LAYER, "no scale", CHAIN),
    Mutation("scores scaled twice", "forward", _scaled(-0.5), LAYER, "scaled twice", CHAIN),
    Mutation(
        "heads split in another order",
        "forward",
        replaced(attention, "rearrange", _other_heads),
        LAYER,
        "heads split in another order",
        CHAIN,
    ),
    Mutation(
        "queries and keys interchanged",
        "intermediates",
        _projections(lambda q, k, v: (k, q, v)),
        LAYER,
        "q and k interchanged",
        CHAIN,
    ),
    Mutation(
        "keys and values interchanged",
        "gradients",
        _projections(lambda q, k, v: (q, v, k)),
        LAYER,
        "k and v interchanged",
        CHAIN,
    ),
    Mutation(
        "projections without bias",
        "forward",
        replaced(MultiheadAttention, "_project", _without_bias),
        LAYER,
        "no bias of the projections",
        CHAIN,
    ),
    Mutation(
        "epsilon of a transformer's normalisation 1e-12",
        "forward",
        constructed(layers.LayerNorm, eps=1e-12),
        "layers.0.norm1",
        "eps 1e-12",
        "transformer_encoder",
    ),
)
