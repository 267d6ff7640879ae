"""Both twins trained alike: losses and weights of one are those of the other."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx

import flaxnets
from flaxnets import data
from flaxnets.experiment.alike import train_alike
from flaxnets.experiment.recipe import Recipe
from flaxnets.parity.compare import relative_error
from flaxnets.training.loop import TrainingError

NETWORKS = {
    # Adam would divide by the gradient of a bias in front of BatchNorm, which is rounding noise.
    "vae": ({"in_shape": (1, 8, 8)}, "digits", {"optimizer": "sgd"}),
    "image_autoencoder": ({"in_shape": (1, 8, 8)}, "digits", {"noise": 0.5}),
    "gan": ({"in_shape": (1, 8, 8), "width": 2}, "digits", {"betas": (0.5, 0.999)}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_same(name):
    """In float64 every loss and every weight, sampling, noise and two phases among them."""
    fields, source, options = NETWORKS[name]
    spec = flaxnets.spec(name, **fields)
    recipe = Recipe(steps=4, batch_size=8, precision="float64", **options)
    both = train_alike(spec, data.load(source), recipe)
    assert len(both.flax.losses) == 4
    assert relative_error(np.array(both.torch.losses), np.array(both.flax.losses)) < 1e-10
    assert both.flax.weights.keys() == both.torch.weights.keys()
    for key, value in both.torch.weights.items():
        assert relative_error(value, both.flax.weights[key]) < 1e-10, key


def test_models():
    """The networks come back as what they are, in evaluation mode, and compute the same."""
    spec = flaxnets.spec("lenet", image_size=16)
    both = train_alike(spec, data.load("digits"), Recipe(steps=3))
    assert isinstance(both.flax.model, nnx.Module)
    assert not both.torch.model.training
    image = np.random.default_rng(0).random((2, 16, 16, 1), np.float32)
    ours = both.flax.model(jax.numpy.asarray(image))
    with torch.no_grad():
        theirs = both.torch.model(torch.tensor(image).movedim(-1, 1))
    assert relative_error(theirs.numpy(), np.asarray(ours)) < 1e-5


def test_of_no_use():
    """An option that the network has no use for is refused, as in a run."""
    with pytest.raises(TrainingError, match="noise is of reconstruction"):
        train_alike(flaxnets.spec("mlp", "tiny"), data.load("digits"), Recipe(noise=0.5))
