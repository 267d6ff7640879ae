"""One function of torch and its translation, on the same float64 numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from flaxnets.swap.twin import load, translate
from flaxnets.swap.twin.model import carry

BOUND = 1e-10  # of the largest magnitude


class Applied(torch.nn.Module):
    """A module that is one function, or calls another."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def agree(function, *inputs, gradients=True):
    """Outputs, and gradients of a random projection of the real ones, agree; gives the source."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # as JAX's is, where it has 64 bits
    try:
        with jax.enable_x64(True):
            return _agree(function, inputs, gradients)
    finally:
        torch.set_default_dtype(before)


def _agree(function, inputs, gradients):
    module = Applied(function).double().eval()
    translation = translate(module, inputs)
    twin = load(translation)
    carry(module, twin)
    views = {"deterministic": True, "use_running_average": True}
    twin = nnx.view(twin, **views, raise_if_not_found=False)
    leaves = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    outputs = _flat(module(*(x.clone() for x in leaves)))
    rng = np.random.default_rng(0)
    cotangents = [rng.standard_normal(tuple(o.shape)) if _is_real(o) else None for o in outputs]
    arrays = [jnp.asarray(_held(x.numpy())) for x in inputs]
    real = [x.is_floating_point() for x in inputs]
    maps = {x.dim() for x in inputs if x.dim() in (4, 5)}

    def projected(given):
        rest = iter(given)
        found = _flat(twin(*(next(rest) if r else x for r, x in zip(real, arrays, strict=True))))
        found = [_as_torch(y, x, maps) for y, x in zip(found, outputs, strict=True)]
        pairs = zip(found, cotangents, strict=True)
        return sum((y * c).sum() for y, c in pairs if c is not None), found

    given = [x for r, x in zip(real, arrays, strict=True) if r]
    wanted = gradients and given and any(c is not None for c in cotangents)
    run = jax.grad(projected, has_aux=True) if wanted else lambda given: ([], projected(given)[1])
    slopes, found = jax.jit(run)(given)
    for ours, theirs in zip(found, outputs, strict=True):
        close(ours, theirs.detach().numpy())
    if wanted:
        pairs = zip(outputs, cotangents, strict=True)
        loss = sum((o * torch.from_numpy(c)).sum() for o, c in pairs if c is not None)
        reals = [x for x in leaves if x.requires_grad]
        expected = torch.autograd.grad(loss, reals, allow_unused=True)
        for slope, x, grad in zip(slopes, reals, expected, strict=True):
            theirs = torch.zeros_like(x) if grad is None else grad
            close(_as_torch(slope, x, maps), theirs.numpy())
    return translation.source


def close(ours, theirs):
    """Shapes, kinds of dtype and values agree."""
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    assert ours.dtype.kind == theirs.dtype.kind, (ours.dtype, theirs.dtype)
    if ours.dtype.kind != "f":
        np.testing.assert_array_equal(ours, theirs)
        return
    scale = np.abs(np.where(np.isfinite(theirs), theirs, 0)).max(initial=1e-30)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=BOUND * scale)


def _is_real(output):
    return output.is_floating_point() and output.requires_grad


def _flat(output):
    return (
        [x for entry in output for x in _flat(entry)]
        if isinstance(output, tuple | list)
        else [output]
    )


def _held(array):
    return np.moveaxis(array, 1, -1) if array.ndim in (4, 5) else array


def _as_torch(array, reference, maps):
    """Maps are channels last where an input is a map of as many axes, or their shape says so."""
    moved = reference.dim() in maps or array.shape != tuple(reference.shape)
    return jnp.moveaxis(array, -1, 1) if moved else array
