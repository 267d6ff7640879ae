"""Where a check runs: on the platform asked for, without TF32, and as before afterwards."""

import jax
import jax.numpy as jnp
import pytest
import torch

from flaxnets.parity import device
from flaxnets.specs import SpecError

FACTORS = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)


def _precisions():
    return [operation.fp32_precision for operation in FACTORS]


def test_platform_and_precision():
    """JAX's arrays lie on the platform; TF32 is off inside and as it was outside."""
    before = _precisions()
    assert set(before) != {"ieee"}
    with device.on("cpu"):
        assert jnp.ones(2).device == jax.devices("cpu")[0]
        assert set(_precisions()) == {"ieee"}
    assert _precisions() == before


@pytest.mark.parametrize(
    ("platform", "message"), [("tpu", "'tpu' is absent; JAX runs on"), ("abacus", "is unknown")]
)
def test_wrong_platform(platform, message):
    """One line that names the platform."""
    with pytest.raises(SpecError, match=message), device.on(platform):
        pass
