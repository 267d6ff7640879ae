"""What a network is trained for: `objective(model, batch) -> loss, metrics`.

Axes: b batch, k classes, t time.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from torch import nn

from flaxnets.specs import MASK, PAD
from torch_ref.layers.loss import vae_loss

Objective = Callable[[nn.Module, Any], tuple[torch.Tensor, dict[str, torch.Tensor]]]


def classification(outputs: str = "logits", label_smoothing: float = 0.0) -> Objective:
    """Mean cross-entropy of a batch (inputs, labels), with the accuracy as its metric.

    Args:
        outputs: what the network returns: "logits", "probabilities" or "log_probabilities".
        label_smoothing: the part of every target that is spread evenly over the classes.

    >>> loss, _ = classification()(lambda x: x, (torch.zeros(1, 4), torch.tensor([0])))
    >>> round(loss.item(), 4)
    1.3863
    """

    def objective(model, batch):
        inputs, labels = batch
        scores = model(*together(inputs))
        logs = scores
        if outputs == "probabilities":
            logs = scores.clamp(min=torch.finfo(scores.dtype).tiny).log()
        if outputs == "logits" or label_smoothing:  # which leaves normalised logarithms alone
            loss = F.cross_entropy(logs.movedim(-1, 1), labels, label_smoothing=label_smoothing)
        else:
            loss = F.nll_loss(logs.movedim(-1, 1), labels)
        return loss, {"accuracy": accuracy(scores, labels)}

    return objective


def together(inputs: Any) -> tuple:
    """A batch's inputs, one tensor or a tuple of several, as a tuple."""
    return inputs if isinstance(inputs, tuple) else (inputs,)


def accuracy(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The share of rows (..., k) whose largest entry is at the label (...), if not at -100."""
    return (scores.argmax(-1) == labels).sum().float() / (labels != -100).sum()


def regression() -> Objective:
    """Mean square error of a batch (inputs, targets), with the mean absolute error beside it."""

    def objective(model, batch):
        inputs, targets = batch
        outputs = model(*together(inputs))
        return F.mse_loss(outputs, targets), {"mae": F.l1_loss(outputs, targets)}

    return objective


def reconstruction(noise: float = 0.0) -> Objective:
    """Mean square error between inputs and outputs; see `flaxnets.training.objectives`."""

    def objective(model, batch):
        inputs, _ = batch
        seen = inputs + noise * torch.randn_like(inputs) if noise else inputs
        return F.mse_loss(model(seen), inputs), {}

    return objective


def variational() -> Objective:
    """The variational bound of a batch of images; see `flaxnets.training.objectives`."""

    def objective(model, batch):
        images, _ = batch
        outputs, mean, logvar = model(images)

        def summed(outputs, images):
            return F.binary_cross_entropy(outputs, images, reduction="sum") / len(images)

        bound = vae_loss(outputs, images, mean, logvar, summed)
        return bound, {"divergence": bound - summed(outputs, images)}

    return objective


def translation(label_smoothing: float = 0.0) -> Objective:
    """Cross-entropy of target tokens with teacher forcing; see `flaxnets.training.objectives`."""

    def objective(model, batch):
        source, target = batch
        wanted = target[:, 1:].masked_fill(target[:, 1:] == PAD, -100)
        scores = model(*together(source), target[:, :-1])
        loss = F.cross_entropy(scores.movedim(-1, 1), wanted, label_smoothing=label_smoothing)
        return loss, {"accuracy": accuracy(scores, wanted)}

    return objective


def masked_language_modelling() -> Objective:
    """Hidden words guessed from the others; see `flaxnets.training.objectives`."""

    def objective(model, batch):
        (tokens, present), _ = batch
        chosen, other = torch.rand(tokens.shape), torch.rand(tokens.shape)
        other = (other * model.vocab_size).to(tokens.dtype)
        hidden = (chosen < 0.15) & (tokens > MASK)
        seen = torch.where(chosen < 0.135, other, tokens).masked_fill(chosen < 0.12, MASK)
        wanted = tokens.long().masked_fill(~hidden, -100)
        scores = model(torch.where(hidden, seen, tokens), present)
        count = hidden.sum().clamp(min=1)  # a small batch may have none
        loss = F.cross_entropy(scores.movedim(-1, 1), wanted, reduction="sum") / count
        return loss, {"accuracy": (scores.argmax(-1) == wanted).sum() / count}

    return objective


def discriminator() -> Objective:
    """First phase of a GAN: real is 1, fake is 0.

    Statistics and random numbers of the generator stay as they were for the second phase.
    """

    def objective(model, batch):
        images, _ = batch
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            state = {k: v.clone() for k, v in model.generator.state_dict().items()}
            noise = _noise(model, images)
            fake = torch.func.functional_call(model.generator, state, (noise,))
        on_real = model.discriminator(2 * images - 1)
        on_fake = model.discriminator(fake)
        loss = F.binary_cross_entropy(on_real, torch.ones_like(on_real))
        loss = loss + F.binary_cross_entropy(on_fake, torch.zeros_like(on_fake))
        return loss, {"real": on_real.mean(), "fake": on_fake.mean()}

    return objective


def generator() -> Objective:
    """Second phase of a GAN: the same noise as in the first, to be taken for real."""

    def objective(model, batch):
        images, _ = batch
        on_fake = model.discriminator(model.generator(_noise(model, images)))
        return F.binary_cross_entropy(on_fake, torch.ones_like(on_fake)), {}

    return objective


def _noise(model: Any, images: torch.Tensor) -> torch.Tensor:
    return torch.randn((len(images), model.noise_channels, 1, 1), dtype=images.dtype)


def phases(
    task: str, outputs: str = "logits", noise: float = 0.0, label_smoothing: float = 0.0
) -> dict[str, Objective]:
    """The objectives of a task by the part of the model that each moves.

    >>> list(phases("gan"))
    ['discriminator', 'generator']
    """
    if task == "gan":
        return {"discriminator": discriminator(), "generator": generator()}
    return {
        "": {
            "classification": lambda: classification(outputs, label_smoothing),
            "regression": regression,
            "reconstruction": lambda: reconstruction(noise),
            "translation": lambda: translation(label_smoothing),
            "masked_language_modelling": masked_language_modelling,
            "vae": variational,
        }[task]()
    }
