"""What a network is trained for: `objective(model, batch, rngs) -> loss, metrics`.

Axes: b batch, k classes, t time.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets import layers
from flaxnets.layers.shape import lifted
from flaxnets.specs import MASK, PAD

Objective = Callable[[nnx.Module, Any, nnx.Rngs], tuple[jax.Array, dict[str, jax.Array]]]


def classification(outputs: str = "logits", label_smoothing: float = 0.0) -> Objective:
    """Mean cross-entropy of a batch (inputs, labels), with the accuracy as its metric.

    A label out of range makes the loss NaN inside `jax.jit`; one of -100 stays out of it.

    Args:
        outputs: what the network returns: "logits", "probabilities" or "log_probabilities".
        label_smoothing: the part of every target that is spread evenly over the classes.

    >>> loss, metrics = classification()(lambda x: x, (jnp.zeros((1, 4)), jnp.zeros(1, int)), None)
    >>> round(float(loss), 4), float(metrics["accuracy"])
    (1.3863, 1.0)
    """

    def objective(model, batch, rngs):
        inputs, labels = batch
        scores = apply(model, rngs, *together(inputs))
        logs = log_probabilities(scores) if outputs == "probabilities" else scores
        if outputs == "logits" or label_smoothing:  # which leaves normalised logarithms alone
            loss = layers.cross_entropy(logs, labels, label_smoothing=label_smoothing)
        else:
            loss = layers.nll_loss(logs, labels)
        return loss, {"accuracy": accuracy(scores, labels)}

    return objective


def apply(model: Any, rngs: nnx.Rngs | None, *inputs: Any) -> Any:
    """The outputs of a model, which gets `rngs` if it is one that takes them.

    A model computes in the dtype of its weights, which real inputs are cast to; losses are
    computed in float32 at least.

    >>> apply(lambda x: x + 1, nnx.Rngs(0), 1)
    2
    """
    call = model.__call__ if isinstance(model, nnx.Module) else model
    takes = "rngs" in inspect.signature(call).parameters
    options = {"rngs": rngs} if takes else {}
    if not isinstance(model, nnx.Module):
        return model(*inputs, **options)
    weights = (x.dtype for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    dtype = next((x for x in weights if jnp.issubdtype(x, jnp.floating)), None)
    if dtype is None:
        return model(*inputs, **options)
    outputs = model(*_cast(inputs, dtype), **options)
    return _cast(outputs, jnp.float32) if jnp.finfo(dtype).bits < 32 else outputs


def _cast(arrays: Any, dtype: Any) -> Any:
    def cast(x: Any) -> Any:
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(cast, arrays)


def together(inputs: Any) -> tuple:
    """A batch's inputs, one array or a tuple of several, as a tuple.

    >>> together(1), together((1, 2))
    ((1,), (1, 2))
    """
    return inputs if isinstance(inputs, tuple) else (inputs,)


def log_probabilities(probabilities: jax.Array) -> jax.Array:
    """Logarithms of probabilities; below the smallest normal number they stay finite and flat.

    >>> bool(jnp.isfinite(log_probabilities(jnp.zeros(()))))
    True
    """
    return jnp.log(jnp.maximum(probabilities, jnp.finfo(probabilities.dtype).tiny))


def accuracy(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of rows (..., k) whose largest entry is at the label (...), if not at -100.

    >>> float(accuracy(jnp.eye(3), jnp.array([0, 0, -100])))
    0.5
    """
    right = _first_largest(scores) == labels.astype(int)
    return jnp.sum(right, dtype=jnp.float32) / jnp.sum(labels != -100, dtype=jnp.float32)


def _first_largest(scores: jax.Array) -> jax.Array:
    """`jnp.argmax` of the last axis, which takes 5 times as long on a CPU; of a NaN its length."""
    count = scores.shape[-1]
    is_largest = scores == scores.max(-1, keepdims=True)
    return jnp.where(is_largest, lifted(jnp.arange(count), scores.ndim), count).min(-1)


def regression() -> Objective:
    """Mean square error of a batch (inputs, targets), with the mean absolute error beside it.

    >>> loss, metrics = regression()(lambda x: x, (jnp.zeros((1, 2)), jnp.full((1, 2), 2.0)), None)
    >>> float(loss), float(metrics["mae"])
    (4.0, 2.0)
    """

    def objective(model, batch, rngs):
        inputs, targets = batch
        outputs = apply(model, rngs, *together(inputs))
        loss = layers.mse_loss(outputs, targets)
        return loss, {"mae": layers.l1_loss(outputs, targets)}

    return objective


def reconstruction(noise: float = 0.0) -> Objective:
    """Mean square error between the inputs of a batch (inputs, anything) and the outputs.

    Args:
        noise: standard deviation of normal noise that is added to what the network sees, so
            that it learns to take noise away (Vincent et al. 2008).

    >>> loss, _ = reconstruction()(lambda x: x + 1, (jnp.zeros((1, 2)), None), None)
    >>> float(loss)
    1.0
    """

    def objective(model, batch, rngs):
        inputs, _ = batch
        seen = inputs
        if noise:
            seen = inputs + noise * jax.random.normal(rngs(), inputs.shape, inputs.dtype)
        return layers.mse_loss(apply(model, rngs, seen), inputs), {}

    return objective


def variational() -> Objective:
    """The variational bound of a batch of images (Kingma, Welling 2013, arXiv 1312.6114).

    Binary cross-entropy summed over each image, plus the divergence of the code from a normal
    distribution; the model returns image, mean and logarithm of the variance of the code.
    """

    def objective(model, batch, rngs):
        images, _ = batch
        outputs, mean, logvar = apply(model, rngs, images)

        def summed(outputs, images):
            return layers.binary_cross_entropy(outputs, images, reduction="sum") / len(images)

        bound = layers.vae_loss(outputs, images, mean, logvar, summed)
        return bound, {"divergence": bound - summed(outputs, images)}

    return objective


def translation(label_smoothing: float = 0.0) -> Objective:
    """Cross-entropy of a batch (source, target), every token guessed from those before it.

    Targets (b, t) begin with START, end with END and are followed by PAD, which does not count;
    the network is shown the right ones up to the token that it guesses (teacher forcing).

    Args:
        label_smoothing: the part of every target that is spread evenly over the tokens.
    """

    def objective(model, batch, rngs):
        source, target = batch
        wanted = jnp.where(target[:, 1:] == PAD, -100, target[:, 1:])
        scores = apply(model, rngs, *together(source), target[:, :-1])
        loss = layers.cross_entropy(scores, wanted, label_smoothing=label_smoothing)
        return loss, {"accuracy": accuracy(scores, wanted)}

    return objective


def masked_language_modelling() -> Objective:
    """Hidden words of a batch (tokens and attention mask, anything), guessed from the others.

    Of 15 % of the tokens, drawn for each batch, 80 % become MASK, 10 % any token and 10 % stay
    as they are; the loss is the mean over them (Devlin et al. 2018, arXiv 1810.04805).
    """

    def objective(model, batch, rngs):
        (tokens, present), _ = batch
        chosen = jax.random.uniform(rngs(), tokens.shape, jnp.float32)
        other = jax.random.uniform(rngs(), tokens.shape, jnp.float32)
        other = jnp.floor(other * model.vocab_size).astype(tokens.dtype)
        hidden = (chosen < 0.15) & (tokens > MASK)
        seen = jnp.where(chosen < 0.12, MASK, jnp.where(chosen < 0.135, other, tokens))
        wanted = jnp.where(hidden, tokens, -100)
        scores = apply(model, rngs, jnp.where(hidden, seen, tokens), present)
        count = jnp.maximum(hidden.sum(), 1)  # a small batch may have none
        loss = layers.cross_entropy(scores, wanted, reduction="sum")
        right = (_first_largest(scores) == wanted.astype(int)).sum(dtype=jnp.float32)
        accuracy = right / count.astype(right.dtype)
        return loss / count.astype(loss.dtype), {"accuracy": accuracy}

    return objective


def discriminator() -> Objective:
    """First phase of a GAN (Goodfellow et al. 2014, arXiv 1406.2661): real is 1, fake is 0.

    The generator is only looked at: its statistics stay for the second phase to change.
    """

    def objective(model, batch, rngs):
        images, _ = batch
        generator = nnx.merge(*nnx.split(model.generator), copy=True)
        noise = _noise(model, len(images), images.dtype, rngs)
        fake = jax.lax.stop_gradient(apply(generator, None, noise))
        on_real = apply(model.discriminator, None, 2 * images - 1)  # as the generator's tanh
        on_fake = apply(model.discriminator, None, fake)
        loss = layers.binary_cross_entropy(on_real, jnp.ones_like(on_real))
        loss += layers.binary_cross_entropy(on_fake, jnp.zeros_like(on_fake))
        return loss, {"real": on_real.mean(), "fake": on_fake.mean()}

    return objective


def generator() -> Objective:
    """Second phase of a GAN: the same noise as in the first, to be taken for real."""

    def objective(model, batch, rngs):
        images, _ = batch
        noise = _noise(model, len(images), images.dtype, rngs)
        on_fake = apply(model.discriminator, None, apply(model.generator, None, noise))
        return layers.binary_cross_entropy(on_fake, jnp.ones_like(on_fake)), {}

    return objective


def _noise(model: Any, count: int, dtype: Any, rngs: nnx.Rngs) -> jax.Array:
    return jax.random.normal(rngs(), (count, 1, 1, model.noise_channels), dtype)


def phases(
    task: str, outputs: str = "logits", noise: float = 0.0, label_smoothing: float = 0.0
) -> dict[str, Objective]:
    """The objectives that a task is trained with, by the part of the model that each moves.

    Args:
        task: of a spec.
        outputs: of a spec.
        noise: for a reconstruction to take away.
        label_smoothing: of a classification or translation.

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
