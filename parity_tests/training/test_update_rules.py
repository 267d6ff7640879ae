"""Numbers of a step against exact arithmetic: float32 keeps the digits of small differences."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxnets.training.update_rules import average_length, correction

STEPS = [1, 2, 3, 5, 6, 10, 100, 499, 501, 700, 5000]


def _exact(beta, step):
    power = Fraction(beta) ** step
    length = 2 / (1 - Fraction(beta)) - 1 - 2 * step * power / (1 - power)
    return float(1 - power), float(length)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta", [0.999, 0.99, 0.9, 0.5, 0.0])
def test_exact(beta, dtype):
    """The bias correction and RAdam's length, to eight units of the dtype."""
    with jax.enable_x64(dtype == "float64"):
        for step in STEPS:
            first, length = _exact(beta, step)
            found = correction(beta, jnp.int32(step)), average_length(beta, jnp.int32(step))
            assert {str(number.dtype) for number in found} == {dtype}
            bound = 8 * np.finfo(dtype).eps
            if dtype == "float64":
                bound = 1e-12  # what 1 - beta, the base of torch's own formula, has lost
            np.testing.assert_allclose(found, (first, length), rtol=bound)


def test_scheduled_beta():
    """A beta that is an array has the same correction."""
    found = correction(jnp.float32(0.9), jnp.int32(3))
    assert float(found) == pytest.approx(1 - 0.9**3, rel=1e-6)
