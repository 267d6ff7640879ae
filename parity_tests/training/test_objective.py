"""How a model is applied: in the dtype of its weights, with random numbers if it takes them."""

import flax.nnx as nnx
import jax.numpy as jnp
import pytest

from flaxnets.training.objective import apply


@pytest.mark.parametrize(
    ("dtype", "inside", "outside"),
    [("float32", "float32", "float32"), ("bfloat16", "bfloat16", "float32")],
)
def test_dtype(dtype, inside, outside):
    """Inputs are cast to the weights' dtype, and what comes out to float32 at least."""
    model = nnx.Linear(3, 2, param_dtype=dtype, rngs=nnx.Rngs(0))
    seen = []
    model.dot_general = lambda x, *args, **kwargs: (
        seen.append(x.dtype) or nnx.nn.linear.lax.dot_general(x, *args, **kwargs)
    )
    assert apply(model, None, jnp.ones((4, 3))).dtype == outside
    assert seen == [inside]


def test_integers():
    """Tokens stay what they are."""
    table = nnx.Embed(5, 3, param_dtype="bfloat16", rngs=nnx.Rngs(0))
    assert apply(table, None, jnp.arange(3)).shape == (3, 3)


def test_randomness():
    """Only a model that takes `rngs` is given them."""
    model = nnx.Dropout(0.5)
    assert apply(model, nnx.Rngs(0), jnp.ones(100)).min() == 0
    assert apply(lambda x: x, nnx.Rngs(0), 1) == 1
