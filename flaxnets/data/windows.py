"""The windows of a series of numbers in time that forecasts are made from.

Axes: n windows in a row, t steps, f features, o values ahead.
"""

import numpy as np
from jaxtyping import Float


def windows(
    values: Float[np.ndarray, " s"], steps: int, features: int, ahead: int, each: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """All sequences of sliding windows with the values that follow.

    Args:
        values: the series.
        steps: windows a sequence; each begins one value after the one before it.
        features: values a window.
        ahead: values that follow a window and are to be forecast.
        each: whether they are wanted for every window or for the last one of a sequence.

    Returns:
        Inputs (n, t, f) and targets (n, o), or (n, t, o) for each.

    >>> inputs, targets = windows(np.arange(6.0), 2, 3, 1)
    >>> inputs[0].tolist(), targets.tolist()
    ([[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]], [[4.0], [5.0]])
    """
    count = len(values) - steps - features - ahead + 2
    start = np.arange(count)[:, None, None] + np.arange(steps)[:, None]
    inputs = values[start + np.arange(features)]
    following = values[start + features + np.arange(ahead)]
    return inputs, following if each else following[:, -1]
