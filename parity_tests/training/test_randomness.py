"""The shapes that a loss draws are those that it asks `jax.random` for."""

from unittest import mock

import jax
import jax.numpy as jnp
import pytest

import flaxnets
from flaxnets import tasks
from flaxnets.data import drawn as data
from flaxnets.training import randomness


@pytest.mark.parametrize("name", ["vae", "transformer", "gan", "rnn", "lenet"])
def test_draws(name):
    """Read off the traced loss, and counted where the numbers are made, in the same order."""
    spec = flaxnets.spec(name, "tiny")
    batch = jax.tree.map(jnp.asarray, data.batch(spec, 2, 0))
    asked = []

    def counted(kind):
        def draw(key, *arguments, **options):
            shape = arguments[-1] if kind == "bernoulli" else arguments[0]
            asked.append(tuple(shape))
            return original[kind](key, *arguments, **options)

        return draw

    original = {kind: getattr(jax.random, kind) for kind in ("bernoulli", "normal")}
    model = flaxnets.build(spec)
    for objective in tasks.of(spec).objectives(spec).values():
        asked.clear()
        with mock.patch.multiple(jax.random, **{kind: counted(kind) for kind in original}):
            found = randomness.draws(objective, model, batch)
        assert found == asked
        assert bool(found) == (name != "lenet")
