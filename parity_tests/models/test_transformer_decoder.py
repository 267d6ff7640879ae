"""TransformerDecoder: weights of torch.nn.TransformerDecoder load into both twins."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flaxnets
from flaxnets import bridge

SPEC = flaxnets.spec("transformer_decoder", "tiny")


@pytest.fixture
def twins():
    """Both twins with the weights of torch's own class, and that class; all in evaluation."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerDecoderLayer(6, 2, 7, batch_first=True)
    own = torch.nn.TransformerDecoder(layer, 1)
    twin, flax = flaxnets.build(SPEC, "torch"), flaxnets.build(SPEC)
    twin.load_state_dict(own.state_dict(), strict=True)
    bridge.load_state_dict(flax, own.state_dict())
    return nnx.view(flax, deterministic=True), twin.eval(), own.eval()


def test_own_class(twins):
    """A causal target and a padded memory give what torch.nn.TransformerDecoder gives."""
    flax, twin, own = twins
    tgt, memory = torch.randn(2, 5, 6), torch.randn(2, 3, 6)
    masks = {
        "tgt_mask": torch.ones(5, 5).triu(1).bool(),
        "memory_key_padding_mask": torch.tensor([[False, False, False], [False, False, True]]),
    }
    given = {name: jnp.asarray(mask.numpy()) for name, mask in masks.items()}
    with torch.no_grad():
        expected = own(tgt, memory, **masks)
        np.testing.assert_array_equal(twin(tgt, memory, **masks), expected)
    ours = flax(jnp.asarray(tgt.numpy()), jnp.asarray(memory.numpy()), **given)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("nhead", 4, "transformer_decoder: d_model 6 is not a multiple of nhead 4"),
        ("dropout", 1.5, "transformer_decoder: dropout 1.5 is out of range; use 0 to 1"),
        ("memory_len", 0, "transformer_decoder: memory_len 0 is too small; use 1 or more"),
    ],
)
def test_wrong(field, value, message):
    """An impossible field is named with its value."""
    with pytest.raises(flaxnets.specs.SpecError, match=message):
        SPEC.replace(**{field: value})
