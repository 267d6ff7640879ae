"""Positional encodings against torch twins, and the table against the paper's formula."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flaxnets import layers, parity
from flaxnets.specs import Input
from torch_ref import layers as torch_layers

CHECKS = ["forward", "forward_train", "gradients", "round_trip", "initialisation"]


@pytest.mark.parametrize("kind", ["SinusoidalPositionalEncoding", "LearnedPositionalEncoding"])
@pytest.mark.parametrize(("shape", "axes"), [((4, 5, 6), "btf"), ((7, 3), "tf")])
def test_encoding(kind, shape, axes):
    """Outputs in both modes, with dropout of the same entries, for even and odd features."""

    def reference(seed):
        torch.manual_seed(seed)
        return getattr(torch_layers, kind)(shape[-1], 8, 0.3)

    def flax(seed):
        rngs = {} if kind.startswith("Sin") else {"rngs": nnx.Rngs(seed)}
        return getattr(layers, kind)(shape[-1], 8, 0.3, **rngs)

    inputs = [Input(name="x", shape=shape, axes=axes)]
    parity.check(flax, reference, inputs, CHECKS).raise_if_failed()


@pytest.mark.parametrize("d_model", [5, 6])
def test_formula(d_model):
    """PE(t, 2i) = sin(t / 10000^(2i / d)), PE(t, 2i + 1) = cos of the same."""
    x = jnp.zeros((9, d_model))
    table = layers.SinusoidalPositionalEncoding(d_model, 9, 0.0)(x)
    for t, column in np.ndindex(9, d_model):
        angle = t / 10000 ** (column // 2 * 2 / d_model)
        wanted = np.cos(angle) if column % 2 else np.sin(angle)
        np.testing.assert_allclose(table[t, column], wanted, rtol=0, atol=1e-7)


def test_keys():
    """The learned table has an Embedding's key, the other none at all."""
    learned = torch_layers.LearnedPositionalEncoding(6, 8)
    assert list(learned.state_dict()) == list(torch.nn.Embedding(8, 6).state_dict())
    assert not torch_layers.SinusoidalPositionalEncoding(6, 8).state_dict()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtype(dtype):
    """The table comes in the dtype of the input."""
    layer = layers.SinusoidalPositionalEncoding(6, 8, 0.0)
    assert layer(jnp.zeros((2, 8, 6), dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: layers.SinusoidalPositionalEncoding(0, 8), "d_model 0 is too small"),
        (
            lambda: layers.LearnedPositionalEncoding(6, 0, rngs=nnx.Rngs(0)),
            "max_len 0 is too small; use 1 or more",
        ),
        (lambda: layers.SinusoidalPositionalEncoding(6, 8, 1.5), "1.5 is out of range; use 0 to 1"),
        (
            lambda: layers.SinusoidalPositionalEncoding(6, 8)(jnp.ones((2, 9, 6))),
            r"input \(2, 9, 6\) is longer than max_len 8",
        ),
        (
            lambda: layers.LearnedPositionalEncoding(6, 8, rngs=nnx.Rngs(0))(jnp.ones((2, 7))),
            r"input \(2, 7\) has 7 features, not 6",
        ),
        (
            lambda: layers.SinusoidalPositionalEncoding(6, 8)(jnp.ones((2, 6))),
            "call it with rngs",
        ),
    ],
)
def test_wrong(act, message):
    """Each wrong option and input is named with its value, in one line."""
    with pytest.raises(ValueError, match=message) as error:
        act()
    assert "\n" not in str(error.value)
