"""Faults that only the compiled program, or its precision, has."""

import itertools

import jax
import jax.numpy as jnp

from flaxnets import layers
from flaxnets.parity.mutations.mutation import Mutation, call, replaced
from flaxnets.training import TrainStep


def _only_when_traced(call, layer, x):
    return call(layer, x * 1.001 if isinstance(x, jax.core.Tracer) else x)


def _rounded(dtype, of=jnp.float32):
    def fault(call, layer, x):
        return call(layer, x.astype(dtype).astype(x.dtype) if x.dtype == of else x)

    return fault


def _called_back(call, layer, x):
    total = jax.lax.stop_gradient(x.sum())
    return call(layer, x) + 0 * jax.pure_callback(lambda total: total, total, total)


def _printed(call, layer, x):
    jax.debug.callback(lambda total: None, jax.lax.stop_gradient(x.sum()))
    return call(layer, x)


def _counted(call, layer, x):
    return call(layer, x) * (1 + next(COUNT) * 1e-3)


def _drifting(self, state, batch):
    after, *others = _watched(self, state, batch)
    first, *rest = after.params
    return after._replace(params=(first * (1 + next(COUNT) * 1e-3), *rest)), *others


def _double(call, layer, x):
    with jax.enable_x64(True):
        return call(layer, x.astype(jnp.float64).astype(x.dtype))


COUNT = itertools.count()
_jit, _watched = jax.jit, TrainStep.watched

MUTATIONS = (
    Mutation(
        "other numbers under jit",
        "compiled",
        call(layers.Linear, _only_when_traced),
        "linear1",
        "ours: the code does something else when it is traced; eager agrees with torch",
        "feedforward",
    ),
    Mutation(
        "a counter in Python, frozen by jit",
        "compiled",
        call(layers.Linear, _counted),
        "linear1",
        "ours",
        "feedforward",
    ),
    Mutation(
        "a counter in Python, frozen by every trace of the step",
        "compiled",
        replaced(TrainStep, "watched", _drifting),
        "update of parameter 0",
        "ours: every layer alone is the same eager and jitted, the step is not",
        "feedforward",
    ),
    Mutation(
        "call to the host",
        "lowering",
        call(layers.Linear, _called_back),
        "linear1",
        "pure_callback",
        "feedforward",
    ),
    Mutation(
        "printing left in the step",
        "lowering",
        call(layers.Linear, _printed),
        "linear1",
        "debug_callback",
        "feedforward",
    ),
    Mutation(
        "float64 in the float32 step",
        "lowering",
        call(layers.Linear, _double),
        "linear1",
        "computes in float64",
        "feedforward",
    ),
    Mutation(
        "state that is not donated",
        "lowering",
        replaced(jax, "jit", lambda function, **options: _jit(function)),
        "state of the step",
        "are donated",
        "feedforward",
    ),
    Mutation(
        "float32 rounded to bfloat16",
        "float32",
        call(layers.Linear, _rounded(jnp.bfloat16)),
        "linear1",
        "as of bfloat16",
        "feedforward",
    ),
    Mutation(
        "float32 rounded to half precision, as TF32",
        "float32",
        call(layers.Conv2d, _rounded(jnp.float16)),
        "conv",
        "as of float16",
        "convolution",
    ),
    Mutation(
        "bfloat16 rounded to 8 bits",
        "bfloat16",
        call(layers.Linear, _rounded(jnp.float8_e4m3fn, jnp.bfloat16)),
        "linear1",
        "ours",
        "feedforward",
    ),
)
