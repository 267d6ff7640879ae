"""Windows against the plain double loop."""

import numpy as np
import pytest

from flaxnets.data.windows import windows


@pytest.mark.parametrize("each", [False, True])
def test_windows(each):
    """Every window and every target is the slice that the loop cuts."""
    values = np.arange(12.0) ** 2
    steps, features, ahead = 4, 3, 2
    inputs, targets = windows(values, steps, features, ahead, each)
    rows = range(len(values) - steps - features - ahead + 2)
    assert len(inputs) == len(targets) == len(rows) == 5
    for row in rows:
        for step in range(steps):
            start = row + step
            assert inputs[row, step].tolist() == values[start : start + features].tolist()
            following = values[start + features : start + features + ahead].tolist()
            if each:
                assert targets[row, step].tolist() == following
        if not each:
            assert targets[row].tolist() == following
    assert targets.ravel()[-1] == values[-1]
