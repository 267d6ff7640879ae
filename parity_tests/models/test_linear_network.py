"""LinearNetwork: the seed's own matrices load into both twins and come back as it prints them."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import flaxnets
from flaxnets import bridge
from flaxnets.specs import SpecError

# What the seed prints of the matrices that it draws with generator seed 1, before training.
PRINTED = {
    "W1": [
        [-1.5256, -0.7502, 0.6995, 0.1991, 0.8657, 0.2444],
        [-0.6629, 0.8073, 0.4391, 1.1712, -2.2456, -1.4465],
        [0.0612, -0.6177, -0.7981, -0.1316, -0.7984, 0.3357],
    ],
    "W2": [
        [0.3935, 1.1322],
        [-0.5404, -2.2102],
        [2.1130, -0.0040],
        [1.3800, -1.3505],
        [0.3455, 0.5046],
        [1.8213, -0.1814],
    ],
}
HALF_A_DIGIT = 0.5e-4 + 1e-7  # four decimals are printed, of float32 numbers


def _drawn(*sizes):
    generator = torch.Generator().manual_seed(1)
    shapes = itertools.pairwise(sizes)
    return {f"W{i}": torch.randn(shape, generator=generator) for i, shape in enumerate(shapes, 1)}


def _twins(variant, weights):
    twin = flaxnets.create("linear_network", "torch", variant)
    flax = flaxnets.create("linear_network", "flax", variant)
    twin.load_state_dict(weights)
    bridge.load_state_dict(flax, weights)
    return flax, twin


def _assert_printed(state):
    assert state.keys() == PRINTED.keys()
    for name, printed in PRINTED.items():
        np.testing.assert_allclose(np.asarray(state[name]), printed, rtol=0, atol=HALF_A_DIGIT)


def test_printed_matrices():
    """The seed's printed matrices, torch's generator, and both twins hold the same numbers."""
    weights = _drawn(3, 6, 2)
    _assert_printed(weights)
    flax, twin = _twins("regression", weights)
    _assert_printed(bridge.state_dict(flax))
    _assert_printed(twin.state_dict())


@pytest.mark.parametrize(("variant", "sizes"), [("default", (3, 20, 8)), ("regression", (3, 6, 2))])
def test_seed_products(variant, sizes):
    """The seed's two products and both twins agree on all numbers of three binary digits."""
    weights = _drawn(*sizes)
    flax, twin = _twins(variant, weights)
    digits = np.array(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), np.float32).reshape(3, -1).T
    x = torch.from_numpy(np.ascontiguousarray(digits))
    expected = (x @ weights["W1"] @ weights["W2"]).numpy()
    np.testing.assert_array_equal(twin(x).detach().numpy(), expected)
    np.testing.assert_allclose(flax(jnp.asarray(digits)), expected, rtol=1e-5, atol=1e-5)


def test_parameter_count():
    """The seed counts 220 parameters in its classifier, 30 in its regression."""
    counts = [
        sum(value.size for value in bridge.state_dict(flax).values())
        for flax in (
            flaxnets.create("linear_network"),
            flaxnets.create("linear_network", variant="regression"),
        )
    ]
    assert counts == [220, 30]


def test_task():
    """The variant says what the network is trained for; an empty layer is refused."""
    assert flaxnets.spec("linear_network").task == "classification"
    assert flaxnets.spec("linear_network", "regression").task == "regression"
    with pytest.raises(SpecError, match="linear_network: hidden_size 0 is too small; use 1 or"):
        flaxnets.spec("linear_network", hidden_size=0)
