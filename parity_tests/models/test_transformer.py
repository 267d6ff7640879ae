"""Transformer: weights of torch.nn.Transformer load into both twins."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flaxnets
from flaxnets import bridge

SPEC = flaxnets.spec("transformer", "tiny")


@pytest.fixture
def twins():
    """Both twins with the weights of torch's own class, and that class; all in evaluation."""
    torch.manual_seed(0)
    own = torch.nn.Transformer(
        6, 2, 1, 1, 7, batch_first=True,
        custom_encoder=torch.nn.TransformerEncoder(
            torch.nn.TransformerEncoderLayer(6, 2, 7, batch_first=True),
            1,
            torch.nn.LayerNorm(6),
            enable_nested_tensor=False,  # which warns of being a prototype
        ),
    )  # fmt: skip
    twin, flax = flaxnets.build(SPEC, "torch"), flaxnets.build(SPEC)
    twin.load_state_dict(own.state_dict(), strict=True)
    bridge.load_state_dict(flax, own.state_dict())
    return nnx.view(flax, deterministic=True), twin.eval(), own.eval()


def test_own_class(twins):
    """A causal target and a padded source give what torch.nn.Transformer gives."""
    flax, twin, own = twins
    src, tgt = torch.randn(2, 3, 6), torch.randn(2, 5, 6)
    padding = torch.tensor([[False, False, False], [False, False, True]])
    masks = {
        "tgt_mask": torch.ones(5, 5).triu(1).bool(),
        "src_key_padding_mask": padding,
        "memory_key_padding_mask": padding,
    }
    given = {name: jnp.asarray(mask.numpy()) for name, mask in masks.items()}
    with torch.no_grad():
        expected = own(src, tgt, **masks)
        np.testing.assert_array_equal(twin(src, tgt, **masks), expected)
    ours = flax(jnp.asarray(src.numpy()), jnp.asarray(tgt.numpy()), **given)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)


def test_keys():
    """The keys are those of torch.nn.Transformer as it makes itself, at its default size."""
    with torch.device("meta"):
        own = torch.nn.Transformer(batch_first=True)
    state = nnx.eval_shape(lambda: flaxnets.build(flaxnets.spec("transformer")))
    assert {entry.name for entry in bridge.convert.entries(state)} == own.state_dict().keys()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("nhead", 4, "transformer: d_model 6 is not a multiple of nhead 4"),
        ("dropout", 1.5, "transformer: dropout 1.5 is out of range; use 0 to 1"),
        ("src_len", 0, "transformer: src_len 0 is too small; use 1 or more"),
    ],
)
def test_wrong(field, value, message):
    """An impossible field is named with its value."""
    with pytest.raises(flaxnets.specs.SpecError, match=message):
        SPEC.replace(**{field: value})
