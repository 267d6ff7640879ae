"""Clipping against torch.nn.utils, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from flaxnets.parity.compare import compare
from flaxnets.training import optimizers
from flaxnets.training.clipping import clip_grad_norm, clip_grad_value

SHAPES = (3, 4), (2,), ()


def _clipped(ours, theirs, grads):
    params = [torch.zeros(grad.shape, dtype=torch.float64) for grad in grads]
    for param, grad in zip(params, grads, strict=True):
        param.grad = torch.tensor(grad)
    theirs(params)
    with jax.enable_x64(True):
        found, _ = ours.update([jnp.asarray(grad) for grad in grads], ours.init(grads))
    truth = {str(i): param.grad.numpy() for i, param in enumerate(params)}
    return compare(truth, {str(i): np.asarray(grad) for i, grad in enumerate(found)})


@pytest.mark.parametrize("size", [1e-6, 0.1, 30.0, 0.0])
@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, 0.5, 0.0, float("inf"), float("-inf")])
def test_norm(norm_type, size):
    """Above, below and far below the bound, where torch's 1e-6 counts; all-zero gradients."""
    rng = np.random.default_rng(0)
    grads = [np.asarray(rng.standard_normal(shape)) * size for shape in SHAPES]
    for max_norm in (1.5, 1e-6):
        found = _clipped(
            clip_grad_norm(max_norm, norm_type),
            lambda params, most=max_norm: torch.nn.utils.clip_grad_norm_(params, most, norm_type),
            grads,
        )
        assert found.error < 1e-14


@pytest.mark.parametrize("clip_value", [0.7, 0.0])
def test_value(clip_value):
    """Every entry ends between the bounds."""
    grads = [np.asarray(np.random.default_rng(0).standard_normal(shape)) for shape in SHAPES]
    found = _clipped(
        clip_grad_value(clip_value),
        lambda params: torch.nn.utils.clip_grad_value_(params, clip_value),
        grads,
    )
    assert found.error == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite(bad):
    """NaN and infinity are not hidden: they end up where torch's end up."""
    grads = [jnp.array([1.0, bad]), jnp.array([2.0])]
    params = [torch.zeros(len(grad)) for grad in grads]
    for param, grad in zip(params, grads, strict=True):
        param.grad = torch.tensor(np.asarray(grad))
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    found, _ = clip_grad_norm(1.0).update(grads, optax.EmptyState())
    for param, grad in zip(params, found, strict=True):
        np.testing.assert_array_equal(param.grad.numpy(), grad)


def test_before_an_optimizer():
    """Chained and jitted, it clips what the optimizer sees, in the gradients' dtype."""
    optimizer = optax.chain(clip_grad_norm(1.0), clip_grad_value(0.5), optimizers.sgd(1.0))
    grads = [jnp.full(4, 3.0, jnp.bfloat16)]
    updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(grads))
    assert updates[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(updates[0], np.float32), -0.5, rtol=1e-2)


def test_negative_bounds():
    """A bound below zero is one line."""
    with pytest.raises(ValueError, match=r"max_norm -1\.0 is not a number of 0 or more"):
        clip_grad_norm(-1.0)
    with pytest.raises(ValueError, match=r"clip_value -1\.0 is not a number of 0 or more"):
        clip_grad_value(-1.0)
