"""Which random numbers a computation draws, so that another framework can draw the same."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets.training.objective import Objective


def draws(objective: Objective, model: nnx.Module, batch: Any) -> list[tuple[int, ...]]:
    """The shapes of what a training loss draws, in order; nothing is computed.

    Args:
        objective: the loss, see `flaxnets.tasks`.
        model: any NNX model.
        batch: as the objective wants it.

    >>> from flaxnets import create
    >>> from flaxnets.tasks import vae
    >>> draws(vae.objective(), create("vae"), (jnp.ones((2, 32, 32, 1)), None))
    [(2, 16)]
    """
    graph, state = nnx.split(
        nnx.view(model, deterministic=False, use_running_average=False, raise_if_not_found=False)
    )

    def loss(state, batch):
        model = nnx.merge(graph, state, copy=True)
        return objective(model, batch, nnx.Rngs(jax.random.key(0)))[0]

    return drawn(jax.make_jaxpr(loss)(state, jax.tree.map(jnp.asarray, batch)).jaxpr)


def drawn(jaxpr: Any) -> list[tuple[int, ...]]:
    """The shapes of the random arrays of a traced computation, in order.

    >>> drawn(jax.make_jaxpr(lambda: jax.random.normal(jax.random.key(0), (2, 3)))().jaxpr)
    [(2, 3)]
    """
    shapes = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "random_bits":
            shapes.append(tuple(equation.params["shape"]))
        for value in equation.params.values():
            if hasattr(value, "jaxpr"):
                shapes += drawn(value.jaxpr)
    return shapes
