"""TransformerEncoder: weights of torch.nn.TransformerEncoder load into both twins."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flaxnets
from flaxnets import bridge

SPEC = flaxnets.spec("transformer_encoder", "tiny")


@pytest.fixture
def twins():
    """Both twins with the weights of torch's own class, and that class; all in evaluation."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        6, 2, 7, activation="gelu", batch_first=True, norm_first=True
    )
    norm = torch.nn.LayerNorm(6)
    own = torch.nn.TransformerEncoder(layer, 2, norm, enable_nested_tensor=False)
    twin, flax = flaxnets.build(SPEC, "torch"), flaxnets.build(SPEC)
    twin.load_state_dict(own.state_dict(), strict=True)
    bridge.load_state_dict(flax, own.state_dict())
    return nnx.view(flax, deterministic=True), twin.eval(), own.eval()


def test_own_class(twins):
    """The causal network of a padded sequence is torch.nn.TransformerEncoder with that mask."""
    flax, twin, own = twins
    src = torch.randn(2, 5, 6)
    causal = torch.ones(5, 5).triu(1).bool()
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[1, 3:] = True
    with torch.no_grad():
        expected = own(src, causal, padding)
        np.testing.assert_array_equal(twin(src, causal, padding), expected)
    ours = flax(jnp.asarray(src.numpy()), src_key_padding_mask=jnp.asarray(padding.numpy()))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)


def test_causal(twins):
    """A change of the last vector changes the last output only, in both twins."""
    flax, twin, _ = twins
    src = torch.randn(2, 5, 6)
    other = src.clone()
    other[:, -1, 0] += 1
    for network, array in ((flax, lambda x: jnp.asarray(x.numpy())), (twin, lambda x: x)):
        with torch.no_grad():
            first, second = (np.asarray(network(array(x))) for x in (src, other))
        np.testing.assert_allclose(first[:, :-1], second[:, :-1], rtol=0, atol=1e-6)
        assert np.abs(first[:, -1] - second[:, -1]).max() > 1e-3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("nhead", 4, "transformer_encoder: d_model 6 is not a multiple of nhead 4"),
        ("dropout", 1.5, "transformer_encoder: dropout 1.5 is out of range; use 0 to 1"),
        ("seq_len", 0, "transformer_encoder: seq_len 0 is too small; use 1 or more"),
    ],
)
def test_wrong(field, value, message):
    """An impossible field is named with its value."""
    with pytest.raises(flaxnets.specs.SpecError, match=message):
        SPEC.replace(**{field: value})
