"""Torch functions inside JAX: values and gradients of both, random numbers of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from jax.test_util import check_grads

from flaxnets import layers, swap
from flaxnets.swap.torch_call import Seeded


def test_metric():
    """A torch loss in a JAX script: value and gradient are those of our own loss, jitted or not."""
    scores = jax.random.normal(jax.random.key(0), (5, 3))
    labels = jnp.array([0, 1, 2, 1, 0])
    theirs = swap.torch_function(F.cross_entropy)
    wanted = jax.value_and_grad(layers.cross_entropy)(scores, labels)
    for call in (jax.value_and_grad(theirs), jax.jit(jax.value_and_grad(theirs))):
        for one, other in zip(call(scores, labels), wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def _function(x, weights, scale):
    product = torch.tanh(x @ weights["w"]) * scale
    return {"y": product, "best": product.argmax(-1), "sum": [product.sum()]}


def test_pytrees_and_orders():
    """First and second derivatives of several inputs and outputs equal finite differences."""
    function = swap.torch_function(_function)
    with jax.enable_x64(True):
        x, w = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(3, 4), (4, 2)]))

        def flat(x, w):
            found = function(x, {"w": w}, 0.5)
            assert found["best"].dtype == jnp.int64
            return found["y"], found["sum"]

        check_grads(flat, (x, w), order=2, modes=["rev"])
        check_grads(jax.jit(flat), (x, w), order=1, modes=["rev"])


def test_unused_input():
    """An input without influence has a gradient of zeros, as in JAX."""
    function = swap.torch_function(lambda x, y: (x * 2).sum())
    assert jax.grad(function, 1)(jnp.ones(2), jnp.ones(3)).tolist() == [0, 0, 0]


def test_scan_and_vmap():
    """In a loop and over rows: what plain torch gives one by one."""
    function = swap.torch_function(lambda x, y: torch.sin(x) + y)
    rows = jnp.arange(6.0).reshape(3, 2)

    def step(x, y):
        x = function(x, y)
        return x, x

    def last(rows):
        return jax.lax.scan(step, jnp.zeros(2), rows)[0].sum()

    x = torch.zeros(2)
    rows_torch = torch.tensor(np.array(rows), requires_grad=True)
    for row in rows_torch:
        x = torch.sin(x) + row
    x.sum().backward()
    np.testing.assert_allclose(jax.jit(last)(rows), x.sum().detach(), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.grad(last))(rows), rows_torch.grad, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(function)(rows, rows), np.sin(rows) + rows, rtol=1e-6)


def test_written_to():
    """A function that writes to its argument gets a copy; JAX's array stays."""
    x = jnp.array([-1.0, 2.0])
    function = swap.torch_function(lambda x: F.relu_(x) * 3)
    assert jax.jit(function)(x).tolist() == [0, 6]
    assert jax.grad(lambda x: function(x).sum())(x).tolist() == [0, 3]
    assert x.tolist() == [-1, 2]


def test_written_to_by_surprise():
    """A function that writes only where it sees certain values is an error."""

    def function(x):
        return x.mul_(2) if x[0] > 5 else x + 0

    called = jax.jit(swap.torch_function(function))
    assert called(jnp.ones(2)).tolist() == [1, 1]
    with pytest.raises(jax.errors.JaxRuntimeError, match="argument 0 is JAX's and was written to"):
        jax.block_until_ready(called(jnp.full(2, 6.0)))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.double(), "an output is torch.float64, which JAX has under jax.enable_x64"),
        (lambda x: {"y": 3}, "the function returns a int; return tensors"),
    ],
)
def test_wrong_outputs(function, message):
    """What JAX cannot hold is named before anything is compiled."""
    with pytest.raises(swap.SwapError, match=message):
        swap.torch_function(function)(jnp.ones(2))


def test_shape_that_depends_on_values():
    """A shape that was not compiled for is an error that names both."""
    function = swap.torch_function(lambda x: x[x > 0])
    x, message = jnp.array([-1.0, 2.0]), r"output 0 has shape \(1,\), and had"
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        jax.block_until_ready(jax.jit(function)(x))
    with pytest.raises(swap.SwapError, match=message):
        function(x)


def test_data_dependent():
    """Python that looks at values works: torch sees them, unlike a traced program."""
    function = jax.jit(swap.torch_function(lambda x: x * 2 if x.sum() > 0 else -x))
    assert function(jnp.array([1.0, 2.0])).tolist() == [2, 4]
    assert function(jnp.array([-1.0, -2.0])).tolist() == [1, 2]


def test_integers():
    """Integers arrive as torch's of 64 bits, and come back only where they fit."""
    gather = swap.torch_function(lambda x, i: (x.gather(0, i), i))
    values, index = gather(jnp.array([5.0, 6.0]), jnp.array([1, 0, 1]))
    assert values.tolist() == [6, 5, 6]
    assert index.dtype == jnp.int32
    with pytest.raises(swap.SwapError, match=r"output 0 holds torch.int64 values that torch.int32"):
        swap.torch_function(lambda x: x.long() * 2**40)(jnp.ones(2))


DRAWING = {
    "dropout": lambda: F.dropout(torch.ones(1000), 0.4),
    "dropout that wants a gradient": lambda: F.dropout(torch.ones(9, requires_grad=True), 0.4),
    "rand": lambda: torch.rand(5),
    "randn": lambda: torch.randn(5),
    "randn_like": lambda: torch.randn_like(torch.ones(5)),
    "rand_like": lambda: torch.rand_like(torch.ones(5)),
    "randint": lambda: torch.randint(100, (9,)),
    "randint between": lambda: torch.randint(5, 100, (9,)),
    "randperm": lambda: torch.randperm(50),
    "normal_": lambda: torch.empty(5).normal_(),
    "normal": lambda: torch.normal(torch.zeros(5), 1.0),
    "bernoulli": lambda: torch.bernoulli(torch.full((99,), 0.5)),
    "multinomial": lambda: torch.multinomial(torch.ones(50), 9),
    "rrelu": lambda: F.rrelu(-torch.ones(9), training=True),
    "exponential_": lambda: torch.empty(5).exponential_(),
    "attention": lambda: F.scaled_dot_product_attention(*3 * [torch.eye(8)[None]], dropout_p=0.5),
    "lstm": lambda: torch.nn.LSTM(3, 4, 2, dropout=0.5, batch_first=True)(torch.ones(1, 5, 3))[0],
}


@pytest.mark.parametrize("name", DRAWING)
def test_seeded(name):
    """Every way of drawing follows the seed, and leaves torch's own generator as it was."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    found = []
    for seed in (1, 1, 2):
        with Seeded(seed) as drawn:
            found.append(DRAWING[name]().detach())
            assert drawn.drew
        if name != "lstm":  # which initialises its weights in the seeded context, too
            assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_seeded_distributions():
    """Dropout keeps its share and its mean."""
    with Seeded(0):
        found = F.dropout(torch.ones(100_000), 0.4)
    assert abs((found == 0).float().mean() - 0.4) < 0.01
    assert abs(found.mean() - 1) < 0.01
    assert F.dropout(torch.ones(3), 0.4, training=False).tolist() == [1, 1, 1]
