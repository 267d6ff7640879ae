"""The loops: both backends take the same steps from the same weights, and stop with one line."""

import numpy as np
import pytest
import torch

import flaxnets
from flaxnets import bridge, data, training
from flaxnets.tasks import classification
from flaxnets.training import Phase, TrainStep, optimizers
from flaxnets.training.dispatch import Dispatch
from flaxnets.training.loop import Trainer, TrainingError
from torch_ref.arrays import tensors
from torch_ref.tasks import classification as torch_classification
from torch_ref.training import loop as torch_loop
from torch_ref.training import optimizers as torch_optimizers

STEPS = 10


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_backends_agree(name):
    """Ten steps on real digits: the losses of both backends differ by float32 rounding."""
    digits = data.load("digits")
    spec = flaxnets.spec("lenet", image_size=16)
    (eaten,) = spec.inputs(1)
    images = data.fit_to(digits.train_inputs, eaten.shape, eaten.axes)
    flax, twin = flaxnets.build(spec), flaxnets.build(spec, "torch")
    twin.load_state_dict(tensors(bridge.state_dict(flax)))

    ours, theirs = [], []
    step = TrainStep(flax, Phase(classification.objective(), optimizers.BY_NAME[name](lr=0.01)))
    state = training.fit(
        step,
        data.batches(images, digits.train_targets, 32),
        STEPS,
        lambda step, metrics: ours.append(metrics["loss"]),
    )
    torch_loop.fit(
        twin,
        [
            torch_loop.Phase(
                torch_classification.objective(),
                torch_optimizers.BY_NAME[name](twin.parameters(), lr=0.01),
            )
        ],
        data.batches(images, digits.train_targets, 32),
        STEPS,
        eaten.axes,
        lambda step, metrics: theirs.append(metrics["loss"]),
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    logits = training.predict(step.model(state), images[:50], batch_size=20)
    np.testing.assert_allclose(
        logits, torch_loop.predict(twin, images[:50], eaten.axes, batch_size=20), atol=1e-2
    )


def _explode(batch, steps):
    model = flaxnets.create("feedforward", variant="tiny", softmax=False)
    step = TrainStep(model, Phase(classification.objective(), optimizers.sgd(0.1)))
    return training.fit(step, [batch] * 3, steps)


def _explode_torch(batch, steps):
    model = flaxnets.create("feedforward", "torch", "tiny", softmax=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    phase = torch_loop.Phase(torch_classification.objective(), optimizer)
    return torch_loop.fit(model, [phase], [batch] * 3, steps, "bf")


@pytest.mark.parametrize("run", [_explode, _explode_torch])
def test_not_finite(run):
    """A loss that is not finite ends the run and names the step."""
    batch = np.full((4, 7), np.inf, np.float32), np.zeros(4, np.int32)
    with pytest.raises((TrainingError, torch_loop.TrainingError), match=r"loss is nan at step 1"):
        run(batch, 2)


@pytest.mark.parametrize("dispatch", [Dispatch(1, "single"), Dispatch(3, "scan")])
def test_label_out_of_range(dispatch):
    """The label is named that makes the loss NaN, not the learning rate."""
    model = flaxnets.create("feedforward", variant="logits")
    step = TrainStep(model, Phase(classification.objective(), optimizers.adam()))
    labels = np.array([[0, 1], [2, 12], [1, 1]], np.int32)
    images = np.ones((2, 100), np.float32)
    trainer = Trainer(step, lambda number: (images, labels[number]), dispatch)
    with pytest.raises(TrainingError, match=r"nan at step 2: target holds 12; use 0 to 9"):
        trainer.advance(3)


@pytest.mark.parametrize("run", [_explode, _explode_torch])
def test_too_few_batches(run):
    """A run that lacks batches says after which step."""
    batch = np.zeros((4, 7), np.float32), np.zeros(4, np.int32)
    with pytest.raises((TrainingError, torch_loop.TrainingError), match="after step 3 of 5"):
        run(batch, 5)


def test_unreadable_batch():
    """A batch that cannot be read ends the run, after the steps before it were told of."""
    model = flaxnets.create("feedforward", variant="tiny", softmax=False)
    step = TrainStep(model, Phase(classification.objective(), optimizers.sgd(0.1)))
    (eaten,) = flaxnets.spec("feedforward", "tiny").inputs(4)

    def batch(number):
        if number == 2:
            raise OSError("image 7 is not readable")
        return np.ones(eaten.shape, np.float32), np.zeros(4, np.int32)

    heard = []
    trainer = training.Trainer(step, batch)
    with pytest.raises(OSError, match="image 7"):
        trainer.advance(5, lambda number, metrics: heard.append(number))
    assert heard == [1, 2]
    assert trainer.taken == 2
