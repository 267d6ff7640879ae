"""Statements: which values get a name, when a name is used again, and in which order draws are."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import nn

from flaxnets.swap.twin import flax_twin, load, translate
from flaxnets.swap.twin.body import sliced
from parity_tests.swap.twin.agreement import Applied, agree

torch.manual_seed(0)
X = torch.randn(3, 4, dtype=torch.float64)


def _lines(function, *inputs):
    source = translate(Applied(function), inputs).source
    return [line.strip() for line in source.partition("def __call__")[2].splitlines()[1:]]


def test_names_are_used_again():
    """The user's reuse of names and the twin's, with an older value that is needed later."""

    def chain(x):
        y = x + 1
        z = y
        y = y * 2
        y = torch.tanh(y)
        return y + z

    assert _lines(chain, X) == [
        "y = inputs_0 + 1",
        "y_2 = y * 2",
        "y_2 = jnp.tanh(y_2)",
        "return y_2 + y",
    ]
    agree(chain, X)


def test_nested():
    """What has no name and is used once stands where it is used."""
    assert _lines(lambda x: torch.exp(torch.sin(x) * 2), X) == [
        "return jnp.exp(jnp.sin(inputs_0) * 2)"
    ]
    assert _lines(lambda x: (-x) ** 2 - (x - (x - 1)), X) == [
        "return (-inputs_0) ** 2 - (inputs_0 - (inputs_0 - 1))"
    ]


def test_reserved_names():
    """Variables that are called as what the source imports."""

    def forward(x):
        jnp = x + 1
        Linear = jnp * 2  # noqa: N806
        sum = Linear.sum()
        return jnp + Linear + sum

    agree(forward, X)


def test_temporaries_do_not_clash():
    """Two helpers of one statement keep their own values."""
    agree(lambda x: x.norm(dim=0) / (x + 1).norm(dim=0) + x.max(0)[0] * (2 * x).max(0)[0], X)
    agree(lambda x: torch.cosine_similarity(x, x.cos(), dim=-1), X)


class Draws(nn.Module):
    """Draws in one statement, among them some whose value is needed twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Dropout(0.5)
        self.second = nn.Dropout(0.3)

    def forward(self, x):
        noise = torch.randn_like(x)
        y = self.first(x) * (self.second(x + noise) + torch.rand_like(x)) - noise
        y = torch.rsub(self.first(y), self.second(y))  # the second less the first
        return self.second(self.first(y)) + y


def test_order_of_draws():
    """Random numbers are drawn in the order of the user's code: flax_twin compares them."""
    twin = flax_twin(Draws(), [torch.randn(4, 5)])
    x = jnp.ones((2, 5))
    one, same = (twin(x, rngs=nnx.Rngs(jax.random.key(3))) for _ in range(2))
    np.testing.assert_array_equal(one, same)


def test_unused_is_left_out():
    """Pure operations without a use; what draws stays, as torch draws it."""

    def forward(x):
        x.exp()
        torch.rand_like(x)
        return x * 2

    lines = _lines(forward, X)
    assert not any("exp" in line for line in lines)
    assert "jax.random.uniform(rngs(), inputs_0.shape, inputs_0.dtype)" in lines


def test_structures():
    """Outputs that are nested, mappings and None among them."""
    module = Applied(lambda x: {"a": x, "b": [x + 1, (x.sum(), None)]})
    twin = load(translate(module, [X]))
    found = twin(jnp.ones((2, 2)))
    assert found["b"][1][1] is None
    assert float(found["b"][1][0]) == 4


def test_sliced():
    """Slices, and what Python makes of them."""
    x, n = list(range(9)), 4
    for parts, expected in (
        (["", "n"], x[:n]),
        (["1", "n", "2"], x[1:n:2]),
        (["n - 2", "len(x) - 1"], x[n - 2 : len(x) - 1]),
        (["", "", "n - 2"], x[:: n - 2]),
        (["n - 2", "", ""], x[n - 2 :]),
    ):
        assert eval(f"x[{sliced(parts)}]") == expected
