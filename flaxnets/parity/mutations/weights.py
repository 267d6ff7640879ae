"""Faults in the bridge and in initial weights."""

import numpy as np
from flax import nnx

from flaxnets.bridge import convert
from flaxnets.layers import conv, embedding, linear, recurrent
from flaxnets.layers.init import uniform_fan_in
from flaxnets.parity.mutations.mutation import Mutation, replaced


def _through(dtype):
    def arranged(array, pattern):
        array = _arrange(array, pattern)
        return array.astype(dtype).astype(array.dtype) if array.dtype.kind == "f" else array

    return arranged


def _zero_vectors(fan_in):
    uniform = _uniform_fan_in(fan_in)
    return lambda key, shape, *more: uniform(key, shape, *more) * float(len(shape) > 1)


_uniform_fan_in, _arrange = linear.uniform_fan_in, convert._arrange

MUTATIONS = (
    Mutation(
        "weights carried in half precision",
        "round_trip",
        replaced(convert, "_arrange", _through(np.float16)),
        "linear1.weight",
        "float32, float64",
        "feedforward",
    ),
    Mutation(
        "weights carried in single precision",
        "round_trip",
        replaced(convert, "_arrange", _through(np.float32)),
        "W1",
        "float64",
        "linear_network",
    ),
    Mutation(
        "normal in place of uniform initial weights",
        "initialisation",
        replaced(linear, "uniform_fan_in", lambda fan_in: nnx.initializers.normal(fan_in**-0.5)),
        "linear1.weight",
        "normal",
        "feedforward",
        {"hidden_size": 50},
    ),
    Mutation(
        "zero initial biases",
        "initialisation",
        replaced(linear, "uniform_fan_in", _zero_vectors),
        "linear1.bias",
        "all 0 in place of uniform",
        "feedforward",
    ),
    Mutation(
        "initial kernels bounded by the channels alone",
        "initialisation",
        replaced(conv, "uniform_fan_in", lambda fan_in: _uniform_fan_in(fan_in // 9)),
        "encoder.2.weight",
        "uniform",
        "conv_autoencoder",
    ),
    Mutation(
        "recurrent weights bounded by the inputs",
        "initialisation",
        replaced(recurrent, "uniform_fan_in", lambda size: _uniform_fan_in(size + 5)),
        "lstm.weight_hh_l0",
        "uniform",
        "lstm_tagger",
    ),
    Mutation(
        "uniform in place of normal embeddings",
        "initialisation",
        replaced(embedding, "normal", lambda: uniform_fan_in(1)),
        "word_embeddings.weight",
        "in place of normal",
        "lstm_tagger",
    ),
)
