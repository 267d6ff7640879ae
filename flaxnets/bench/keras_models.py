"""Keras models of the same layers and sizes, trained with Keras's own `fit`.

Initial weights are Keras's own, as are the gates of its recurrent layers: the work is the same.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

os.environ["KERAS_BACKEND"] = "jax"  # which Keras reads when it is imported
import keras
from keras import layers

from flaxnets.specs import Spec


def model(spec: Spec) -> keras.Model:
    """The Keras model of a spec whose architecture is in `MODELS`."""
    example = spec.inputs(1)[0].shape[1:]
    return keras.Sequential([layers.Input(example), *MODELS[spec.name](spec)])


def trained(
    model: keras.Model, spec: Spec, batches: Sequence[Any], lr: float
) -> Callable[[int], None]:
    """A call that trains a model for a number of steps.

    Args:
        model: of the spec.
        spec: whose task it is.
        batches: pairs of inputs and targets, the latter None for a reconstruction.
        lr: of Adam.
    """
    loss: Any = "mse"
    metric = "mae"
    wanted = spec.targets(1)
    if wanted and wanted.high:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=spec.outputs == "logits")
        metric = "accuracy"
    model.compile(keras.optimizers.Adam(lr), loss, metrics=[metric])
    size = len(batches[0][0])

    pairs = [(x, x if targets is None else targets) for x, targets in batches]

    @functools.cache
    def data(steps: int) -> tuple[np.ndarray, ...]:
        several = [pairs[index % len(pairs)] for index in range(steps)]
        return tuple(np.concatenate(arrays) for arrays in zip(*several, strict=True))

    def run(steps: int) -> None:
        inputs, targets = data(steps)
        model.fit(inputs, targets, batch_size=size, shuffle=False, verbose=0)

    return run


def _mlp(spec: Any) -> list[Any]:
    hidden = [layers.Dense(size, "relu") for size in spec.hidden_sizes]
    return [*hidden, layers.Dense(spec.num_classes)]


def _feedforward(spec: Any) -> list[Any]:
    last = "softmax" if spec.softmax else None
    return [layers.Dense(spec.hidden_size, spec.activation), layers.Dense(spec.num_classes, last)]


def _linear_network(spec: Any) -> list[Any]:
    return [
        layers.Dense(spec.hidden_size, use_bias=False),
        layers.Dense(spec.out_features, use_bias=False),
    ]


def _rnn(spec: Any) -> list[Any]:
    cell = {"rnn": layers.SimpleRNN, "lstm": layers.LSTM, "gru": layers.GRU}[spec.cell]
    every = [*[True] * (spec.num_layers - 1), spec.output == "sequence"]
    return [
        *[cell(spec.hidden_size, return_sequences=whole) for whole in every],
        layers.Dense(spec.output_size),
    ]


def _autoencoder(spec: Any) -> list[Any]:
    return [
        layers.Dense(spec.reduced_size, "relu"),
        layers.Dense(spec.encoding_size),
        layers.Dense(spec.reduced_size, "relu"),
        layers.Dense(spec.input_size),
    ]


def _image_autoencoder(spec: Any) -> list[Any]:
    first, second = spec.hidden_sizes
    sizes = (first, second, spec.code_size, second, first)
    return [
        layers.Flatten(),
        *[layers.Dense(size, "relu") for size in sizes],
        layers.Dense(spec.flat_size, "sigmoid"),
        layers.Reshape(spec.inputs(1)[0].shape[1:]),
    ]


def _lenet(spec: Any) -> list[Any]:
    convolutions = [
        layer
        for channels, kernel in zip(spec.channels, spec.kernel_sizes, strict=True)
        for layer in (layers.Conv2D(channels, kernel, activation="relu"), layers.MaxPooling2D(2))
    ]
    dense = [layers.Dense(size, spec.dense_activation) for size in spec.dense_sizes]
    return [*convolutions, layers.Flatten(), *dense, layers.Dense(spec.num_classes)]


MODELS: dict[str, Callable[[Any], list[Any]]] = {
    "mlp": _mlp,
    "feedforward": _feedforward,
    "linear_network": _linear_network,
    "rnn": _rnn,
    "autoencoder": _autoencoder,
    "image_autoencoder": _image_autoencoder,
    "lenet": _lenet,
}
