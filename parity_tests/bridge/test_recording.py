"""Recording: every call once, and nothing left behind."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flaxnets
from flaxnets.bridge.recording import recorded


def test_calls_in_order():
    """Submodules report as they end, the model last, a layer called twice twice."""
    model, seen = flaxnets.create("lenet", variant="tiny"), []
    before = nnx.Linear.__call__
    with recorded(model, lambda name, *call: seen.append(name)):
        model(jnp.ones((1, 18, 18, 2)))
    assert seen == [
        "conv1", "pool1", "conv2", "pool2", "flatten", "fc1", "act1", "fc2", "act2", "fc3", "",
    ]  # fmt: skip
    assert nnx.Linear.__call__ is before


def test_calls_inside_a_loop():
    """A call inside `lax.scan` is reported at every step, with its numbers."""
    model, seen = flaxnets.create("char_rnn", variant="tiny"), []
    with recorded(model, lambda name, module, args, kwargs, out: seen.append((name, out))):
        model(jnp.ones((1, 2, 5)))
    assert [name for name, _ in seen] == [*["out_fc", "softmax", "hid_fc"] * 2, ""]
    assert not np.array_equal(seen[0][1], seen[3][1])


def test_other_models_are_unseen_and_errors_restore():
    """Another model's calls are not reported, and an error leaves the classes as they were."""
    model, other, seen = (nnx.Linear(2, 2, rngs=nnx.Rngs(0)) for _ in range(2)), None, []
    model, other = model
    before = nnx.Linear.__call__

    def failing():
        with recorded(model, lambda name, *call: seen.append(name)):
            other(jnp.ones((1, 2)))
            model(jnp.ones((1, 3)))

    with pytest.raises(Exception, match="dot_general"):
        failing()
    assert seen == []
    assert nnx.Linear.__call__ is before
