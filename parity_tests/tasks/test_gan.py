"""What the discriminator says of real images and of those that are made."""

import numpy as np

from flaxnets import data, specs
from flaxnets.tasks import GRID, evaluate


def test_figures():
    """Images are between 0 and 1 where they are shown, and as tanh gives them to the networks."""
    spec = specs.make("gan", in_shape=(1, 8, 8))
    chosen = data.fit(data.load("digits"), spec.examples(1), spec.targets(1))

    def call(inputs, axes, part):
        if part == "generator":
            return np.full((len(inputs), 8, 8, 1), -0.5)
        return inputs.mean((1, 2, 3))

    found = evaluate(spec, call, chosen)
    assert found.samples.shape == (GRID, 8, 8, 1)
    assert (found.samples == 0.25).all()
    images = np.asarray(chosen.test_inputs)[:GRID]
    assert found.figures["test_fake"] == -0.5
    assert abs(found.figures["test_real"] - np.mean(2 * images - 1)) < 1e-6
