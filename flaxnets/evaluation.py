"""What a trained network is worth on examples that it has not seen, beside what is trivial.

Axes: n examples, t time, k classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flaxnets import data, specs
from flaxnets.edge.message import printable
from flaxnets.specs import END, MASK, PAD

GRID = 64  # samples that a generative network is asked for
SHOWN = 8  # examples in words
HIDDEN = 0.15  # of the words, for a language model to guess
PASSAGES = 64  # that it is tested on

# Outputs for inputs of the given axes, in Flax's layout: of the network, or of one of its parts.
Call = Callable[[Any, Any, str | None], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a trained network did.

    Attributes:
        figures: by name; what a trivial guess reaches stands beside them.
        outputs: for the test inputs, in Flax's layout; tokens of a network that translates.
        samples: that a generative network made, in Flax's layout.
        examples: a few of its answers in words.
    """

    figures: dict[str, float]
    outputs: np.ndarray
    samples: np.ndarray | None = None
    examples: tuple[str, ...] = ()


def evaluate(spec: specs.Spec, call: Call, chosen: data.Dataset) -> Evaluation:
    """Figures on the test examples of a data set, and a few answers in words.

    Args:
        spec: of the network.
        call: the trained network.
        chosen: the data, as it fits the network.
    """
    found = _judged(spec, call, chosen)
    # Words and labels may be from anybody's files, and are shown on terminals.
    return replace(found, examples=tuple(printable(x, len(x)) for x in found.examples))


def _judged(spec: specs.Spec, call: Call, chosen: data.Dataset) -> Evaluation:
    if spec.task == "gan":
        return _adversarial(spec, call, chosen)
    if spec.task == "masked_language_modelling":
        return _language(spec, call, chosen)
    axes = tuple(given.axes for given in spec.examples(1))
    part = "greedy" if spec.task == "translation" else None
    outputs = call(chosen.test_inputs, axes if len(axes) > 1 else axes[0], part)
    if spec.task == "classification":
        return _classification(chosen, outputs)
    if spec.task == "translation":
        return _translation(chosen, outputs)
    if spec.task == "regression":
        return _regression(chosen, outputs)
    inputs = np.asarray(chosen.test_inputs)
    figures = {
        "test_mse": float(np.mean((outputs - inputs) ** 2)),
        "test_mse_of_the_mean": float(np.mean((inputs.mean(0) - inputs) ** 2)),
    }
    if spec.task != "vae":
        return Evaluation(figures=figures, outputs=outputs)
    rng = np.random.Generator(np.random.Philox(0))
    codes = rng.standard_normal((GRID, spec.n_latent), np.float32)  # type: ignore[attr-defined]
    samples = call(codes, "bf", "decode")
    return Evaluation(figures=figures, outputs=outputs, samples=samples)


def _adversarial(spec: specs.Spec, call: Call, chosen: data.Dataset) -> Evaluation:
    rng = np.random.Generator(np.random.Philox(0))
    (noise,) = spec.inputs(GRID)
    samples = call(rng.standard_normal(noise.shape, np.float32), "bhwc", "generator")
    samples = (samples + 1) / 2
    images = np.asarray(chosen.test_inputs)[:GRID]
    real, fake = (call(2 * x - 1, "bhwc", "discriminator") for x in (images, samples))
    figures = {"test_real": float(real.mean()), "test_fake": float(fake.mean())}
    return Evaluation(figures=figures, outputs=real, samples=samples)


def _classification(chosen: data.Dataset, outputs: np.ndarray) -> Evaluation:
    truth, guesses = chosen.test_targets, outputs.argmax(-1)
    counted = truth != -100
    commonest = _commonest(chosen.train_targets[chosen.train_targets != -100])
    figures = {
        "test_accuracy": float(np.mean(guesses[counted] == truth[counted])),
        "test_accuracy_of_the_commonest_label": float(np.mean(truth[counted] == commonest)),
    }
    examples = []
    for row in _spread(len(truth)) if chosen.words else ():
        words = _words(chosen, row)
        if truth.ndim == 1:
            answer = chosen.labels[guesses[row]]
            verdict = _verdict(answer, chosen.labels[truth[row]])
            examples.append(f"{chosen.separator.join(words)}: {answer} ({verdict})")
            continue
        examples.append(
            " ".join(
                f"{word}/{chosen.labels[guess]}"
                + ("" if guess == label else f"(not {chosen.labels[label]})")
                for word, guess, label in zip(words, guesses[row], truth[row], strict=False)
            )
        )
    return Evaluation(figures=figures, outputs=outputs, examples=tuple(examples))


def _translation(chosen: data.Dataset, outputs: np.ndarray) -> Evaluation:
    def text(tokens: np.ndarray) -> str:
        ends = np.flatnonzero((tokens == END) | (tokens == PAD))
        known = tokens[: ends[0] if len(ends) else None]
        return "".join(_word(chosen.labels, token) for token in known)

    truth = [text(tokens[1:]) for tokens in chosen.test_targets]  # behind START
    guesses = [text(tokens) for tokens in outputs]
    commonest = _commonest(np.array([text(tokens[1:]) for tokens in chosen.train_targets]))
    figures = {
        "test_exact_match": float(np.mean([a == b for a, b in zip(guesses, truth, strict=True)])),
        "test_exact_match_of_the_commonest": float(np.mean([a == commonest for a in truth])),
    }
    examples = tuple(
        f"{chosen.separator.join(_words(chosen, row))} -> {guesses[row]} "
        f"({_verdict(guesses[row], truth[row])})"
        for row in _spread(len(truth))
    )
    return Evaluation(figures=figures, outputs=outputs, examples=examples)


def _regression(chosen: data.Dataset, outputs: np.ndarray) -> Evaluation:
    truth = chosen.test_targets
    inputs = chosen.test_inputs
    first = inputs[0] if isinstance(inputs, tuple) else inputs
    if first.ndim == 3:  # windows of a series: what comes next is what was last
        name, trivial = "last_value", first[:, -1, -1].reshape(-1, *[1] * (truth.ndim - 1))
        if truth.ndim == 3 and truth.shape[1] == first.shape[1]:
            trivial = first[:, :, -1:]
    else:
        name, trivial = "mean", chosen.train_targets.mean(0)
    figures = {
        "test_mse": float(np.mean((outputs - truth) ** 2)),
        f"test_mse_of_the_{name}": float(np.mean((trivial - truth) ** 2)),
        "test_mae": float(np.mean(np.abs(outputs - truth))),
    }
    return Evaluation(figures=figures, outputs=outputs)


def _language(spec: specs.Spec, call: Call, chosen: data.Dataset) -> Evaluation:
    tokens, present = (part[:PASSAGES] for part in chosen.test_inputs)
    rng = np.random.Generator(np.random.Philox(0))
    hidden = (rng.random(tokens.shape) < HIDDEN) & (tokens > MASK)
    axes = tuple(given.axes for given in spec.examples(1))
    scores = call((np.where(hidden, MASK, tokens).astype(tokens.dtype), present), axes, None)
    truth = tokens[hidden]
    logits = scores[hidden].astype(np.float64)
    logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    seen = chosen.train_inputs[0]
    counts = 1 + np.bincount(seen[seen > MASK], minlength=logits.shape[-1])
    figures = {
        "test_accuracy": float(np.mean(logits.argmax(-1) == truth)),
        "test_accuracy_of_the_commonest_word": float(np.mean(truth == counts.argmax())),
        "test_perplexity": float(np.exp(-np.mean(logs[np.arange(len(truth)), truth]))),
        "test_perplexity_of_word_counts": float(
            np.exp(-np.mean(np.log(counts[truth] / counts.sum())))
        ),
    }
    guesses = scores.argmax(-1)
    examples = tuple(
        chosen.separator.join(
            f"[{guess} ({_verdict(guess, word)})]" if covered else word
            for word, guess, covered in zip(
                _words(chosen, row),
                [_word(chosen.words, token) for token in guesses[row]],
                hidden[row],
                strict=False,
            )
        )
        for row in _spread(len(tokens))
    )
    return Evaluation(figures=figures, outputs=scores, examples=examples)


def _words(chosen: data.Dataset, row: int) -> list[str]:
    """The words of a test example, without what is behind its end."""
    inputs = chosen.test_inputs
    tokens, *more = (part[row] for part in (inputs if isinstance(inputs, tuple) else (inputs,)))
    if tokens.ndim == 2:
        tokens = tokens.argmax(-1)
    length = more[0].sum() if more else np.count_nonzero(tokens != PAD)
    tokens = tokens[:length]
    return [chosen.words[token] for token in tokens]


def _word(words: tuple[str, ...], token: int) -> str:
    """A word; a network may have room for more than there are."""
    return words[token] if token < len(words) else f"<{token}>"


def _commonest(values: np.ndarray) -> Any:
    found, counts = np.unique(values, return_counts=True)
    return found[counts.argmax()]


def _spread(count: int) -> range:
    """A few rows from everywhere."""
    return range(0, count, max(1, count // SHOWN))[:SHOWN]


def _verdict(answer: str, truth: str) -> str:
    return "right" if answer == truth else f"not {truth}"
