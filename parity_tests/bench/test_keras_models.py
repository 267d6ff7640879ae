"""Keras's models are the networks: as many weights, and they train."""

import numpy as np
import pytest

import flaxnets
from flaxnets.bench import keras_models
from flaxnets.data import drawn
from flaxnets.summary import count_parameters


@pytest.mark.parametrize("name", sorted(keras_models.MODELS))
def test_same_weights(name):
    """Keras's model and ours hold as many weights, but for torch's second recurrent bias."""
    spec = flaxnets.spec(name)
    model = keras_models.model(spec)
    second_bias = spec.num_layers * spec.hidden_size if name == "rnn" else 0
    assert model.count_params() == count_parameters(spec) - second_bias


def test_trains():
    """Steps that are asked for are taken, one a batch."""
    spec = flaxnets.spec("feedforward", "tiny")
    model = keras_models.model(spec)
    batches = [drawn.batch(spec, 4, seed) for seed in range(2)]
    run = keras_models.trained(model, spec, batches, 0.01)
    before = [np.array(weight.value) for weight in model.weights]
    run(5)
    assert int(model.optimizer.iterations.value) == 5
    after = [np.asarray(weight.value) for weight in model.weights]
    assert all((old != new).any() for old, new in zip(before, after, strict=True))
