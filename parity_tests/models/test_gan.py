"""GAN: the seed's two halves load alone and together, and both phases agree with torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flaxnets
from flaxnets import bridge, parity, specs
from flaxnets.models.gan import Discriminator, Generator
from flaxnets.tasks import gan
from flaxnets.training import Phase, TrainStep, optimizers
from torch_ref import random
from torch_ref.arrays import tensors
from torch_ref.models import gan as torch_gan
from torch_ref.tasks import gan as torch_losses
from torch_ref.training import loop


class SeedGenerator(torch.nn.Module):
    """The seed's class; it calls `super()` without `.__init__()`."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.ConvTranspose2d(200, 32 * 8, 4, 1, 0, bias=False),
            torch.nn.BatchNorm2d(32 * 8),
            torch.nn.ReLU(),
            torch.nn.ConvTranspose2d(32 * 8, 32 * 4, 4, 2, 1, bias=False),
            torch.nn.BatchNorm2d(32 * 4),
            torch.nn.ReLU(),
            torch.nn.ConvTranspose2d(32 * 4, 32 * 2, 4, 2, 1, bias=False),
            torch.nn.BatchNorm2d(32 * 2),
            torch.nn.ReLU(),
            torch.nn.ConvTranspose2d(32 * 2, 32, 4, 2, 1, bias=False),
            torch.nn.BatchNorm2d(32),
            torch.nn.ReLU(),
            torch.nn.ConvTranspose2d(32, 1, 4, 2, 1, bias=False),
            torch.nn.Tanh(),
        )

    def forward(self, tens):
        return self.net(tens)


class SeedDiscriminator(torch.nn.Module):
    """The seed's class; it calls `super()` without `.__init__()`."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(1, 32, 4, 2, 1, bias=False),
            torch.nn.LeakyReLU(0.2),
            torch.nn.Conv2d(32, 32 * 2, 4, 2, 1, bias=False),
            torch.nn.BatchNorm2d(32 * 2),
            torch.nn.LeakyReLU(0.2),
            torch.nn.Conv2d(32 * 2, 32 * 4, 4, 2, 1, bias=False),
            torch.nn.BatchNorm2d(32 * 4),
            torch.nn.LeakyReLU(0.2),
            torch.nn.Conv2d(32 * 4, 32 * 8, 4, 2, 1, bias=False),
            torch.nn.BatchNorm2d(32 * 8),
            torch.nn.LeakyReLU(0.2),
            torch.nn.Conv2d(32 * 8, 1, 4, 1, 0, bias=False),
            torch.nn.Sigmoid(),
        )

    def forward(self, tens):
        return self.net(tens)


HALVES = [
    (SeedGenerator, Generator, torch_gan.Generator, (3, 200, 1, 1)),
    (SeedDiscriminator, Discriminator, torch_gan.Discriminator, (3, 1, 64, 64)),
]


@pytest.mark.parametrize(("seed", "half", "twin", "shape"), HALVES)
def test_seed_checkpoint(seed, half, twin, shape):
    """Each half of the seed loads, strict, into the half of both twins, and runs alone."""
    spec, source, x = flaxnets.spec("gan"), seed().eval(), torch.randn(shape)
    flax, theirs = half(spec, rngs=nnx.Rngs(0)), twin(spec).eval()
    theirs.load_state_dict(source.state_dict())
    bridge.load_state_dict(flax, source.state_dict())
    flax = nnx.view(flax, use_running_average=True)
    expected = source(x).detach()
    np.testing.assert_array_equal(theirs(x).detach(), expected)
    ours = flax(jnp.asarray(x.permute(0, 2, 3, 1).numpy()))
    np.testing.assert_allclose(ours, expected.permute(0, 2, 3, 1), rtol=1e-3, atol=1e-5)


def test_phases_agree():
    """Three steps of both phases in float64: every weight and statistic of both twins."""
    spec = flaxnets.spec("gan", "tiny")
    images = np.random.default_rng(0).random((3, 4, 16, 16, 2))
    with jax.enable_x64(True):
        pair = parity.Pair(
            lambda seed: flaxnets.build(spec, "flax", seed),
            lambda seed: flaxnets.build(spec, "torch", seed),
            spec.inputs(4),
        )
        phases = [
            Phase(objective, optimizers.sgd(0.01), part)
            for part, objective in gan.objectives(specs.make("gan")).items()
        ]
        step, twin = TrainStep(pair.flax_model(), *phases), pair.torch_model()
        torch_phases = [
            loop.Phase(objective, torch.optim.SGD(loop.parameters(twin, part), 0.01), part)
            for part, objective in torch_losses.objectives(specs.make("gan")).items()
        ]
        state = step.state
        for index, batch in enumerate(images):
            key = jax.random.fold_in(jax.random.key(0), index)
            state, _ = step(state, (jnp.asarray(batch), None))
            noise = jax.random.normal(nnx.Rngs(key)(), (4, 1, 1, 5), jnp.float64)
            drawn = torch.tensor(np.moveaxis(np.asarray(noise), -1, 1))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(torch_losses, "_noise", lambda *_, drawn=drawn: drawn)
                loop.fit(twin, torch_phases, [(batch, np.zeros(4, int))], 1, "bhwc")
        ours = bridge.state_dict(step.model(state))
    for name, value in twin.state_dict().items():
        gap = np.max(np.abs(ours[name] - value.numpy())) / np.max(np.abs(value.numpy()))
        assert gap < 1e-10, (name, gap)


def test_noise_is_replayed():
    """The noise of a phase is what the key of its step draws, in torch too."""
    key = jax.random.key(5)
    ours = jax.random.normal(nnx.Rngs(key)(), (2, 1, 1, 7))
    with random.replay(5, [(2, 1, 1, 7)]):
        theirs = torch.randn((2, 7, 1, 1))
    np.testing.assert_allclose(np.moveaxis(np.asarray(ours), -1, 1), theirs, rtol=1e-6)


def test_channels_and_sizes():
    """Three channels, and any power of two."""
    model = flaxnets.create("gan", variant="colour")
    assert model.generator(jnp.ones((1, 1, 1, 200))).shape == (1, 64, 64, 3)
    assert flaxnets.spec("gan", in_shape=(1, 128, 128)).features == (32, 64, 128, 256, 512)
    with pytest.raises(flaxnets.specs.SpecError, match="no square image whose size is a power"):
        flaxnets.spec("gan", in_shape=(1, 48, 48))


def test_whole_state_crosses():
    """Both halves travel in one file's worth of names."""
    model, twin = flaxnets.create("gan", variant="tiny"), flaxnets.create("gan", "torch", "tiny")
    twin.load_state_dict(tensors(bridge.state_dict(model)))
