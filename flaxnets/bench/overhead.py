"""What `TrainStep` costs beside the same step written by hand, on a network of 256 weights.

The network is so narrow that a step is its dispatch. `python -m flaxnets.bench.overhead` prints
the result as a line of JSON.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxnets import layers
from flaxnets.bench.result import Overhead
from flaxnets.tasks import classification
from flaxnets.training import Phase, TrainStep, optimizers

LAYERS, WIDTH, BATCH = 128, 8, 8
LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8  # Adam's, as in torch
ROUNDS = 15
TURN = 0.2  # seconds

Batch = tuple[jax.Array, jax.Array]


class DeepMLP(nnx.Module):
    """Dense layers of one width with ReLU behind all but the last."""

    def __init__(self, depth: int, width: int, rngs: nnx.Rngs) -> None:
        self.dense = nnx.List([layers.Linear(width, width, rngs=rngs) for _ in range(depth)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """(b, width) -> (b, width)."""
        for layer in self.dense[:-1]:
            x = jax.nn.relu(layer(x))
        return self.dense[-1](x)


class HandState(NamedTuple):
    """Weights and biases in turn, both moments of Adam, and the number of steps."""

    params: tuple[jax.Array, ...]
    first: tuple[jax.Array, ...]
    second: tuple[jax.Array, ...]
    step: jax.Array


def by_hand(state: HandState, batch: Batch) -> tuple[HandState, dict[str, jax.Array]]:
    """The step as somebody would write it for this one network."""

    def loss_of(params):
        x, labels = batch
        for index in range(0, len(params), 2):
            x = x @ params[index] + params[index + 1][None]
            x = jax.nn.relu(x) if index < len(params) - 2 else x
        chosen = jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], axis=1)
        return -chosen.mean(), (x.argmax(-1) == labels).mean()

    (loss, accuracy), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    step = state.step + 1
    params, first, second = [], [], []
    for p, m, v, g in zip(state.params, state.first, state.second, grads, strict=True):
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * g * g
        root = jnp.sqrt(v / (1 - BETA2**step)) + EPS
        params.append(p - LR / (1 - BETA1**step) * m / root)
        first.append(m)
        second.append(v)
    after = HandState(tuple(params), tuple(first), tuple(second), step)
    return after, {"loss": loss, "accuracy": accuracy}


def steps(depth: int = LAYERS, width: int = WIDTH) -> tuple[TrainStep, Callable, HandState, Batch]:
    """Both steps from the same weights, the hand's state, and a batch."""
    model = DeepMLP(depth, width, nnx.Rngs(0))
    ours = TrainStep(model, Phase(classification.objective(), optimizers.adam(LR)))
    weights = [
        jnp.copy(leaf[...])
        for layer in model.dense
        for leaf in (layer.kernel, layer.bias)
        if leaf is not None
    ]
    first, second = (tuple(map(jnp.zeros_like, weights)) for _ in range(2))
    state = HandState(tuple(weights), first, second, jnp.zeros((), jnp.int32))
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((BATCH, width), np.float32))
    labels = jnp.asarray(rng.integers(0, width, BATCH).astype(np.int32))
    return ours, jax.jit(by_hand, donate_argnums=0), state, (x, labels)


def measure(depth: int = LAYERS, rounds: int = ROUNDS, turn: float = TURN) -> Overhead:
    """The time of both steps, in turns."""
    ours, hand, hand_state, batch = steps(depth)
    calls: list[Callable] = [ours, hand]
    states: list[Any] = [ours.state, hand_state]
    leaves = len(jax.tree.leaves(ours.state))
    times: list[list[float]] = [[], []]

    def run(which: int, count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            states[which], _ = calls[which](states[which], batch)
        jax.block_until_ready(states[which])
        return (time.perf_counter() - began) / count

    counts = []
    for which in (0, 1):
        run(which, 1)  # compiles
        counts.append(max(1, round(turn / run(which, 3))))
    for _ in range(rounds):
        for which in (0, 1):
            times[which].append(run(which, counts[which]))
    flaxnets, hand_time = map(statistics.median, times)
    return Overhead(leaves, 1e3 * flaxnets, 1e3 * hand_time, flaxnets / hand_time)


if __name__ == "__main__":
    print(json.dumps(asdict(measure())))
