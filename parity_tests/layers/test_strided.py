"""Gradients of strided convolutions against JAX's own and torch's."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import lax

from flaxnets.layers import strided
from flaxnets.layers.strided import Window, convolve

AXES = {1: ((11,), (8,)), 2: ((9, 8), (7, 6)), 3: ((5, 6, 4),)}
TORCH = {1: "conv1d", 2: "conv2d", 3: "conv3d"}


def window(dims, stride, padding, dilation=1, groups=1):
    """One number for all axes."""
    return Window((stride,) * dims, ((padding, padding),) * dims, (dilation,) * dims, groups)


CASES = [
    (sizes, channels, (kernel,) * dims, window(dims, stride, padding))
    for dims, channels in ((1, 2), (2, 16), (2, 2), (3, 2))
    for sizes in AXES[dims]
    for kernel, stride, padding in itertools.product(
        (1, 2, 3, 4, 5) if dims < 3 else (2, 3), (1, 2, 3) if dims < 3 else (2,), (0, 1)
    )
    if dims == 1 or stride > 1
] + [
    ((9, 8), 16, (3, 3), window(2, 2, 1, dilation=2)),
    ((9, 8), 16, (3, 3), window(2, 2, 1, groups=2)),
    ((9, 8), 16, (4, 5), Window((2, 1), ((1, 1), (0, 0)), (1, 1), 1)),
    ((9, 8), 16, (1, 3), Window((3, 2), ((0, 0), (1, 1)), (1, 1), 1)),  # pixels that no tap sees
    ((13, 12), 16, (5, 4), Window((4, 3), ((3, 3), (2, 2)), (1, 1), 1)),  # too many phases
    ((4, 4), 16, (4, 4), window(2, 1, 0)),  # one window
    ((4, 3), 16, (4, 5), window(2, 3, 1)),
]


def drawn(sizes, channels, kernel_size, window, batch=2):
    """Input, kernel and gradient of the output, in the widest dtype."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((batch, *sizes, channels)))
    kernel = jnp.asarray(rng.standard_normal((*kernel_size, channels // window.groups, 16)))
    return x, kernel, jnp.asarray(rng.standard_normal(window.convolve(x, kernel).shape))


@partial(jax.jit, static_argnums=0)
def _both(window, x, kernel, dy):
    """Output and gradients of our convolution and of XLA's, in one program."""
    found = []
    for function in (partial(convolve, window), window.convolve):
        y, back = jax.vjp(function, x, kernel)
        found.append((y, *back(dy)))
    return found


def close(ours, theirs):
    """To rounding, relative to the largest magnitude."""
    assert ours.shape == theirs.shape
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max(initial=1))


@pytest.mark.parametrize(
    ("sizes", "channels", "kernel_size", "window"),
    CASES,
    ids=[f"{s}-{c}-{k}-{w.stride}-{w.padding[0]}" for s, c, k, w in CASES],
)
def test_gradients(sizes, channels, kernel_size, window):
    """Both gradients are those of XLA's convolution and of torch's, in float64."""
    dims = len(sizes)
    with jax.enable_x64(True):
        x, kernel, dy = drawn(sizes, channels, kernel_size, window)
        ours, xlas = _both(window, x, kernel, dy)
        for mine, theirs in zip(ours, xlas, strict=True):
            close(mine, theirs)
    x, kernel, dy = (torch.tensor(np.asarray(array)) for array in (x, kernel, dy))
    x.requires_grad_(), kernel.requires_grad_()
    y = getattr(torch.nn.functional, TORCH[dims])(
        x.movedim(-1, 1),
        kernel.movedim((-1, -2), (0, 1)),
        stride=window.stride,
        padding=[start for start, _ in window.padding],
        dilation=window.dilation,
        groups=window.groups,
    ).movedim(1, -1)
    y.backward(dy)
    for mine, theirs in zip(ours, (y.detach(), x.grad, kernel.grad), strict=True):
        close(mine, theirs.numpy())


@pytest.mark.parametrize(
    ("stride", "kernel", "way"),
    [
        ((2, 2), (4, 4, 32, 16), strided._phases),
        ((2, 2), (4, 4, 32, 8), None),
        ((2, 2), (2, 2, 32, 16), strided._product),
        ((2, 2), (4, 4, 1, 16), strided._product),
        ((2, 2), (7, 7, 3, 64), None),
        ((3, 3), (5, 5, 32, 16), None),
        ((1, 1), (3, 3, 32, 16), None),
        ((2,), (4, 32, 16), None),
        ((2, 2, 2), (3, 3, 3, 1, 8), strided._phases),
    ],
)
def test_way(stride, kernel, way):
    """A shape and the way that was measured as the fastest; XLA's for groups and dilation."""
    dims = len(stride)
    plain = Window(stride, ((1, 1),) * dims, (1,) * dims, 1)
    assert strided._way(plain, kernel) is way
    assert strided._way(plain._replace(groups=2), kernel) is None
    assert strided._way(plain._replace(dilation=(2,) * dims), kernel) is None


ROUND = ((6, 6), 16, (4, 4), window(2, 2, 1))


@pytest.fixture(scope="module")
def arrays():
    """In float32."""
    return drawn(*ROUND)


def gradients(x, kernel, dy, function=None):
    """Of a convolution; ours if no other is named."""
    return jax.vjp(function or partial(convolve, ROUND[-1]), x, kernel)[1](dy)


def test_transformations(arrays):
    """Under jit, vmap and scan the gradients are those without."""
    x, kernel, dy = arrays
    wanted = gradients(*arrays)
    stacked = (x[None], dy[None])
    mapped = jax.vmap(lambda x, dy: gradients(x, kernel, dy))(*stacked)
    _, scanned = lax.scan(lambda carry, xs: (carry, gradients(xs[0], kernel, xs[1])), 0, stacked)
    for got in (
        jax.jit(gradients)(*arrays),
        *(jax.tree.map(lambda a: a[0], t) for t in (mapped, scanned)),
    ):
        for mine, theirs in zip(got, wanted, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-5)


def test_second_derivative(arrays):
    """The derivative of a gradient's length is that of XLA's convolution."""
    x, kernel, dy = arrays

    def length(x, kernel, function=None):
        return sum(jnp.square(g).sum() for g in gradients(x, jnp.sin(kernel), dy, function))

    ours = jax.jit(jax.grad(length, (0, 1)))(x, kernel)
    theirs = jax.jit(jax.grad(partial(length, function=ROUND[-1].convolve), (0, 1)))(x, kernel)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-5 * float(jnp.abs(other).max()))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(arrays, dtype):
    """In two bytes gradients keep their dtype and agree with float32 to its bits."""
    for half, truth in zip(
        gradients(*(array.astype(dtype) for array in arrays)), gradients(*arrays), strict=True
    ):
        assert half.dtype == dtype
        error = jnp.abs(half.astype("float32") - truth).max() / jnp.abs(truth).max()
        assert float(error) < 4 * jnp.finfo(dtype).eps


def test_platforms(arrays):
    """The CPU's program has no convolution of an output with gaps, others' have XLA's."""
    jitted = jax.jit(gradients)
    program = {
        platform: jax.export.export(jitted, platforms=[platform])(*arrays).mlir_module()
        for platform in ("cpu", "cuda", "tpu")
    }
    gaps = {platform: text.count("lhs_dilate = [2, 2]") for platform, text in program.items()}
    assert gaps == {"cpu": 0, "cuda": 1, "tpu": 1}
    assert program["cuda"].count("stablehlo.convolution") == 2
    assert program["cpu"].count("stablehlo.convolution") == 1 + 4


def test_unneeded_gradient(arrays):
    """Where only the kernel's gradient is asked for, the input's is not computed."""

    def loss(kernel, x, dy):
        return (convolve(ROUND[-1], x, kernel) * dy).sum()

    x, kernel, dy = arrays
    text = jax.jit(jax.grad(loss)).lower(kernel, x, dy).compile().as_text()
    assert text.count(" convolution(") == 1
