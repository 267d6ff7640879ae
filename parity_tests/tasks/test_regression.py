"""Errors against torch, and beside what is trivial."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flaxnets.tasks import evaluate, regression
from parity_tests.tasks.both import check_objective
from parity_tests.tasks.sequences import DATA, Sequences
from torch_ref.tasks import regression as reference


@dataclass(frozen=True, kw_only=True)
class Forecaster(Sequences):
    task: ClassVar[str] = "regression"


def test_objective():
    """Mean square and mean absolute error."""
    inputs, targets = np.random.default_rng(1).random((2, 6, 4))
    model = (lambda _: lambda x: 2 * x,) * 2
    check_objective(
        regression.objective(),
        reference.objective(),
        model,
        inputs,
        lambda x, array: (x, array(targets)),
    )


def test_forecast():
    """The trivial forecast of a series is its last value."""
    inputs = np.arange(12.0).reshape(2, 3, 2)
    targets = np.array([[6.0], [13.0]])
    chosen = dataclasses.replace(
        DATA, train_inputs=inputs, test_inputs=inputs, test_targets=targets, num_classes=None
    )
    found = evaluate(Forecaster(), lambda *call: targets, chosen)
    assert found.figures["test_mse"] == 0
    assert found.figures["test_mse_of_the_last_value"] == (1 + 4) / 2


def test_forecast_of_every_step():
    """Of a whole sequence that is forecast it is the value at each step."""
    inputs = np.arange(12.0).reshape(2, 3, 2)
    targets = inputs[..., 1:] + 1
    chosen = dataclasses.replace(
        DATA, train_inputs=inputs, test_inputs=inputs, test_targets=targets, num_classes=None
    )
    found = evaluate(Forecaster(), lambda *call: targets + 2, chosen)
    assert found.figures == {
        "test_mse": 4,
        "test_mse_of_the_last_value": 1,
        "test_mae": 2,
    }


def test_rows():
    """The trivial guess for rows is the mean of those that were trained on."""
    chosen = dataclasses.replace(
        DATA,
        train_inputs=np.zeros((2, 3)),
        test_inputs=np.zeros((2, 3)),
        train_targets=np.array([[0.0], [2.0]]),
        test_targets=np.array([[1.0], [4.0]]),
        num_classes=None,
    )
    found = evaluate(Forecaster(), lambda *call: np.zeros((2, 1)), chosen)
    assert found.figures == {"test_mse": 8.5, "test_mse_of_the_mean": 4.5, "test_mae": 2.5}
