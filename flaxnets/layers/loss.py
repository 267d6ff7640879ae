"""torch.nn.functional's losses, channels last, with torch's arguments, defaults and gradients.

Classes are the last axis (torch: axis 1 of more than two dimensions). `reduction` is "mean",
"sum" or "none", the last of which keeps one loss an entry or a row. Where two pieces of a loss
meet, the gradient is the one that torch takes there.

Every loss raises ValueError for shapes that do not fit (torch broadcasts some of them, which
hides mistakes), for integers where real numbers are needed and for an unknown reduction. A label
out of range raises ValueError, too, where it can be seen; inside `jax.jit` it makes the loss NaN.

Axes: b batch, k classes, d features, t time, s labels of one sequence; dots stand for any axes.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Num

from flaxnets.layers.shape import lifted

Real = Float[Array, "..."]

# torch's bound in the gradient of binary_cross_entropy: 1e-12, held as float32 for every dtype.
LEAST_VARIANCE = 9.999999960041972e-13


def mse_loss(
    input: Real, target: Num[Array, "..."], *, reduction: str = "mean", weight: Real | None = None
) -> Real:
    """Squared difference; its mean is weighted where there is a weight for every entry.

    >>> float(mse_loss(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
    2.0
    """
    _require_alike(input=input, target=target, weight=weight)
    return _weighted((input - target) ** 2, weight, reduction)


def l1_loss(
    input: Real, target: Num[Array, "..."], *, reduction: str = "mean", weight: Real | None = None
) -> Real:
    """Absolute difference; its mean is weighted where there is a weight for every entry.

    >>> float(l1_loss(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
    1.0
    """
    _require_alike(input=input, target=target, weight=weight)
    return _weighted(_abs(input - target), weight, reduction)


def smooth_l1_loss(
    input: Real, target: Num[Array, "..."], *, reduction: str = "mean", beta: float = 1.0
) -> Real:
    """Squared difference / (2 beta) below beta, absolute difference - beta / 2 above.

    Girshick (2015), "Fast R-CNN", arXiv 1504.08083. A beta of 0 is `l1_loss`.

    >>> smooth_l1_loss(jnp.array([1.0, 3.0]), jnp.zeros(2), reduction="none").tolist()
    [0.5, 2.5]
    """
    if beta < 0:
        raise ValueError(f"beta {beta} is negative; use 0 or more")
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    return huber_loss(input, target, reduction=reduction, delta=beta) / beta


def huber_loss(
    input: Real,
    target: Num[Array, "..."],
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Real | None = None,
) -> Real:
    """Squared difference / 2 below delta, delta (absolute difference - delta / 2) above.

    Huber (1964), "Robust estimation of a location parameter". As in torch, weights do not
    enter the number that a mean divides by.

    >>> huber_loss(jnp.array([1.0, 3.0]), jnp.zeros(2), reduction="none", delta=2.0).tolist()
    [0.5, 4.0]
    """
    _require_alike(input=input, target=target, weight=weight)
    if delta <= 0:
        raise ValueError(f"delta {delta} is not positive; use a number above 0")
    gap = jnp.abs(input - target)
    loss = jnp.where(gap <= delta, 0.5 * gap**2, delta * (gap - 0.5 * delta))
    return _reduce(loss if weight is None else loss * weight, reduction)


def cross_entropy(
    input: Float[Array, "*b k"],
    target: Num[Array, "..."],
    weight: Real | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Real:
    """Negative log-likelihood of labels, or of probabilities, under the softmax of logits.

    Args:
        input: logits (..., k).
        target: labels (...), integers from 0 to k - 1, or probabilities (..., k).
        weight: of every class, (k,); a mean over labels is divided by their weights.
        ignore_index: the label of rows that do not count.
        reduction: of the losses (...). A mean over ignored labels only is NaN, as in torch.
        label_smoothing: the part of every target that is spread evenly over the classes.

    Source: torch.nn.functional.cross_entropy.

    >>> float(cross_entropy(jnp.zeros((2, 4)), jnp.array([3, -100])))  # log 4
    1.3862943649291992
    >>> float(cross_entropy(jnp.zeros((1, 4)), jnp.full((1, 4), 0.25)))
    1.3862943649291992
    """
    _require_classes(input, weight)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing {label_smoothing} is not between 0 and 1")
    classes = input.shape[-1]
    logs = jax.nn.log_softmax(input)
    weighted = logs if weight is None else logs * lifted(weight, logs.ndim)
    if _is_real(target):
        _require_shape("target", target, input.shape)
        spread = target * (1 - label_smoothing) + label_smoothing / classes
        return _reduce(-(weighted * spread).sum(-1), reduction)
    losses, scale = _of_labels(logs, target, weight, ignore_index)
    loss = _reduce(losses, reduction, scale)
    if not label_smoothing:
        return loss
    even = jnp.where(target == ignore_index, 0, -weighted.mean(-1))
    # Reduced apart: where all weights are 0, a mean is NaN, as torch's is.
    return (1 - label_smoothing) * loss + label_smoothing * _reduce(even, reduction, scale)


def nll_loss(
    input: Float[Array, "*b k"],
    target: Num[Array, "..."],
    weight: Real | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Real:
    """Minus the entry of log-probabilities (..., k) at labels (...); see `cross_entropy`.

    >>> float(nll_loss(jnp.array([[-0.5, -1.0]]), jnp.array([1])))
    1.0
    """
    _require_classes(input, weight)
    loss, scale = _of_labels(input, target, weight, ignore_index)
    return _reduce(loss, reduction, scale)


def binary_cross_entropy(
    input: Real, target: Num[Array, "..."], weight: Real | None = None, *, reduction: str = "mean"
) -> Real:
    """Negative log-likelihood of targets under probabilities, logarithms cut at -100.

    The gradient by the input is torch's, (input - target) / max(input (1 - input), 1e-12); the
    gradient by a target stays finite at inputs 0 and 1, where torch's is infinite. An input
    below 0 or above 1 raises ValueError; inside `jax.jit` it makes the loss NaN.

    Args:
        input: probabilities.
        target: of the input's shape, from 0 to 1.
        weight: of every loss; broadcast.
        reduction: of the losses.

    >>> float(binary_cross_entropy(jnp.zeros(1), jnp.ones(1)))
    100.0
    """
    _require_alike(input=input, target=target)
    _require_broadcast("weight", weight, input.shape)
    if (wrong := _first(input, (input < 0) | (input > 1))) is not None:
        raise ValueError(f"input holds {wrong}; use probabilities from 0 to 1")
    loss = _binary_cross_entropy(input, target)
    return _reduce(loss if weight is None else loss * lifted(weight, loss.ndim), reduction)


@jax.custom_jvp
def _binary_cross_entropy(p: Array, target: Array) -> Array:
    log_p, log_q = _cut_logs(p)
    return (target - 1) * log_q - target * log_p


@_binary_cross_entropy.defjvp
def _(primals, tangents):
    (p, target), (p_dot, target_dot) = primals, tangents
    log_p, log_q = _cut_logs(p)
    slope = (p - target) / jnp.maximum(p * (1 - p), LEAST_VARIANCE)
    return _binary_cross_entropy(p, target), slope * p_dot + (log_q - log_p) * target_dot


def _cut_logs(p: Array) -> tuple[Array, Array]:
    return jnp.maximum(jnp.log(p), -100), jnp.maximum(jnp.log1p(-p), -100)


def binary_cross_entropy_with_logits(
    input: Real,
    target: Num[Array, "..."],
    weight: Real | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Real | None = None,
) -> Real:
    """Negative log-likelihood of targets under the sigmoid of logits.

    Args:
        input: logits.
        target: of the input's shape, from 0 to 1.
        weight: of every loss; broadcast.
        reduction: of the losses.
        pos_weight: of positive targets, (k,) for one number a class, which is the last axis;
            broadcast.

    >>> round(float(binary_cross_entropy_with_logits(jnp.zeros(1), jnp.ones(1))), 4)
    0.6931
    """
    _require_alike(input=input, target=target)
    _require_broadcast("weight", weight, input.shape)
    _require_broadcast("pos_weight", pos_weight, input.shape)
    positive = 1 if pos_weight is None else lifted(pos_weight - 1, input.ndim) * target + 1
    loss = (1 - target) * input - positive * jax.nn.log_sigmoid(input)
    return _reduce(loss if weight is None else loss * lifted(weight, loss.ndim), reduction)


def kl_div(
    input: Real, target: Num[Array, "..."], *, reduction: str = "mean", log_target: bool = False
) -> Real:
    """Kullback-Leibler divergence of a target from log-probabilities, entry by entry.

    Args:
        input: logarithms of probabilities.
        target: probabilities, or their logarithms, of the input's shape. At probability 0 its
            gradient is finite here and NaN in torch.
        reduction: also "batchmean", the sum over the size of the first axis, which is the
            divergence of mathematics; "mean" divides by the number of entries.
        log_target: whether the target is in logarithms.

    >>> half = jnp.full((1, 2), 0.5)
    >>> float(kl_div(jnp.log(half), half, reduction="batchmean"))
    0.0
    """
    _require_alike(input=input, target=target)
    if log_target:
        loss = jnp.exp(target) * (target - input)
    else:
        loss = target * jnp.log(jnp.where(target > 0, target, 1)) - target * input
    if reduction == "batchmean":
        return loss.sum() / (input.shape[0] if input.ndim else 1)
    return _reduce(loss, reduction, also="batchmean, ")


def multi_margin_loss(
    input: Float[Array, "*b k"],
    target: Num[Array, "..."],
    p: int = 1,
    margin: float = 1.0,
    weight: Real | None = None,
    *,
    reduction: str = "mean",
) -> Real:
    """How far other classes come within a margin of the label's score, averaged over classes.

    Args:
        input: scores (..., k).
        target: labels (...), integers from 0 to k - 1.
        p: power of the shortfall, 1 or 2.
        margin: by which the label's score should lead.
        weight: of every class, (k,); does not enter the number that a mean divides by.
        reduction: of the losses (...).

    >>> float(multi_margin_loss(jnp.array([[0.0, 0.5]]), jnp.array([1])))
    0.25
    """
    _require_classes(input, weight)
    if p not in (1, 2):
        raise ValueError(f"p {p} is unknown; use 1 or 2")
    classes = input.shape[-1]
    _require_labels("target", target, input.shape[:-1])
    wrong = _out_of_range("target", target, classes)
    label = jnp.clip(target, 0, classes - 1)
    lead = jnp.take_along_axis(input, label[..., None], -1) - input
    others = ~_is_class(label, classes)
    loss = jnp.where(others, jax.nn.relu(margin - lead) ** p, 0).sum(-1) / classes
    if weight is not None:
        loss = loss * weight[label]
    return _reduce(jnp.where(wrong, jnp.nan, loss), reduction)


def multilabel_margin_loss(
    input: Float[Array, "*b k"], target: Num[Array, "..."], *, reduction: str = "mean"
) -> Real:
    """How far other classes come within 1 of the scores of a row's labels, over the classes.

    Args:
        input: scores (..., k).
        target: labels (..., k), of which those before the first -1 count.
        reduction: of the losses (...).

    >>> float(multilabel_margin_loss(jnp.array([[0.0, 0.5]]), jnp.array([[1, -1]])))
    0.25
    """
    _require_classes(input)
    classes = input.shape[-1]
    _require_labels("target", target, input.shape)
    wrong = _out_of_range("target", target, classes, ignored=-1).any(-1)
    counts = jnp.cumsum(target < 0, axis=-1) == 0
    label = jnp.clip(target, 0, classes - 1)
    is_label = (_is_class(label, classes) & counts[..., None]).any(-2)
    lead = jnp.take_along_axis(input, label, -1)[..., :, None] - input[..., None, :]
    counted = counts[..., :, None] & ~is_label[..., None, :]
    loss = jnp.where(counted, jax.nn.relu(1 - lead), 0).sum((-2, -1)) / classes
    return _reduce(jnp.where(wrong, jnp.nan, loss), reduction)


def multilabel_soft_margin_loss(
    input: Float[Array, "*b k"],
    target: Num[Array, "..."],
    weight: Real | None = None,
    *,
    reduction: str = "mean",
) -> Real:
    """Binary cross-entropy of logits (..., k), averaged over the last axis, in torch too.

    Args:
        input: logits.
        target: of the input's shape, 0 or 1.
        weight: of every class; broadcast.
        reduction: of the losses (...).

    >>> round(float(multilabel_soft_margin_loss(jnp.zeros((1, 2)), jnp.eye(2)[:1])), 4)
    0.6931
    """
    loss = binary_cross_entropy_with_logits(input, target, weight, reduction="none")
    return _reduce(loss.mean(-1), reduction)


def soft_margin_loss(input: Real, target: Num[Array, "..."], *, reduction: str = "mean") -> Real:
    """log(1 + exp(-target input)) for targets 1 and -1; finite where torch's exp overflows.

    >>> round(float(soft_margin_loss(jnp.zeros(1), jnp.ones(1))), 4)
    0.6931
    """
    _require_alike(input=input)
    _require_shape("target", target, input.shape)
    return _reduce(jax.nn.softplus(-_real(target, input) * input), reduction)


def hinge_embedding_loss(
    input: Real, target: Num[Array, "..."], margin: float = 1.0, *, reduction: str = "mean"
) -> Real:
    """Distances of alike pairs (target 1), and what others (-1) lack to a margin.

    >>> distances = jnp.array([0.25, 0.25])
    >>> hinge_embedding_loss(distances, jnp.array([1, -1]), reduction="none").tolist()
    [0.25, 0.75]
    """
    _require_alike(input=input)
    _require_shape("target", target, input.shape)
    apart = jnp.where(target != 1, _above_zero(margin - input), 0)
    return _reduce(apart + jnp.where(target != -1, input, 0), reduction)


def cosine_embedding_loss(
    input1: Float[Array, "*b d"],
    input2: Float[Array, "*b d"],
    target: Num[Array, "..."],
    margin: float = 0.0,
    *,
    reduction: str = "mean",
) -> Real:
    """1 - cosine for alike vectors (target 1), what the cosine has above a margin for others (-1).

    >>> float(cosine_embedding_loss(jnp.eye(2)[:1], jnp.eye(2)[1:], jnp.array([1])))
    1.0
    """
    _require_alike(input1=input1, input2=input2)
    _require_shape("target", target, input1.shape[:-1])
    squares = [(x * x).sum(-1) + 1e-12 for x in (input1, input2)]
    cosine = (input1 * input2).sum(-1) / jnp.sqrt(squares[0] * squares[1])
    alike = jnp.where(target == 1, 1 - cosine, 0)
    return _reduce(alike + jnp.where(target == -1, _above_zero(cosine - margin), 0), reduction)


def margin_ranking_loss(
    input1: Real,
    input2: Real,
    target: Num[Array, "..."],
    margin: float = 0.0,
    *,
    reduction: str = "mean",
) -> Real:
    """What the first input lacks to lead the second (target 1), or the other way round (-1).

    >>> float(margin_ranking_loss(jnp.zeros(1), jnp.ones(1), jnp.ones(1), margin=0.5))
    1.5
    """
    _require_alike(input1=input1, input2=input2)
    _require_shape("target", target, input1.shape)
    return _reduce(_above_zero(margin - _real(target, input1) * (input1 - input2)), reduction)


def triplet_margin_loss(
    anchor: Float[Array, "*b d"],
    positive: Float[Array, "*b d"],
    negative: Float[Array, "*b d"],
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    *,
    reduction: str = "mean",
) -> Real:
    """What the distance to the negative lacks to exceed that to the positive by a margin.

    Balntas, Riba, Ponsa, Mikolajczyk (2016), "Learning local feature descriptors with triplets".

    Args:
        anchor: the vectors that are compared.
        positive: vectors that should be near.
        negative: vectors that should be far.
        margin: above 0.
        p: of the norm, above 0; infinity for the largest entry.
        eps: added to every difference.
        swap: whether the positive stands in for an anchor that is farther from the negative.
        reduction: of the losses (...).

    >>> float(triplet_margin_loss(jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.ones((1, 1))))
    1.0
    """
    if p <= 0:
        raise ValueError(f"p {p} is not positive; use a number above 0")
    return triplet_margin_with_distance_loss(
        anchor,
        positive,
        negative,
        distance_function=functools.partial(_distance, p=p, eps=eps),
        margin=margin,
        swap=swap,
        reduction=reduction,
    )


def triplet_margin_with_distance_loss(
    anchor: Float[Array, "*b d"],
    positive: Float[Array, "*b d"],
    negative: Float[Array, "*b d"],
    *,
    distance_function: Callable[[Array, Array], Array] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Real:
    """`triplet_margin_loss` with any distance; None for the Euclidean.

    >>> float(triplet_margin_with_distance_loss(
    ...     jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.ones((1, 1)),
    ...     distance_function=lambda x, y: jnp.abs(x - y).sum(-1)))
    1.0
    """
    _require_alike(anchor=anchor, positive=positive, negative=negative)
    if margin <= 0:
        raise ValueError(f"margin {margin} is not positive; use a number above 0")
    distance = distance_function or functools.partial(_distance, p=2.0, eps=1e-6)
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = jnp.minimum(far, distance(positive, negative))
    return _reduce(_above_zero(margin + near - far), reduction)


def _distance(x: Array, y: Array, p: float, eps: float) -> Array:
    """The p-norm of x - y + eps along the last axis, with gradient 0 at distance 0."""
    gap = _abs(x - y + eps)
    if math.isinf(p):
        return gap.max(-1)
    powers = jnp.where(gap > 0, jnp.where(gap > 0, gap, 1) ** p, 0).sum(-1)
    return jnp.where(powers > 0, jnp.where(powers > 0, powers, 1) ** (1 / p), 0)


def poisson_nll_loss(
    input: Real,
    target: Num[Array, "..."],
    log_input: bool = True,
    full: bool = False,
    *,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Real:
    """Negative log-likelihood of counts under Poisson's distribution.

    Args:
        input: its mean, or the logarithm of that.
        target: counts, of the input's shape.
        log_input: whether the input is a logarithm.
        full: whether to add Stirling's approximation of log(target!) for targets above 1.
        eps: added to a mean before its logarithm is taken.
        reduction: of the losses.

    >>> float(poisson_nll_loss(jnp.zeros(1), jnp.ones(1)))
    1.0
    """
    _require_alike(input=input, target=target)
    mean, log_mean = (jnp.exp(input), input) if log_input else (input, jnp.log(input + eps))
    loss = mean - target * log_mean
    if full:
        count = jnp.where(target > 1, target, 1)
        stirling = count * jnp.log(count) - count + 0.5 * jnp.log(2 * math.pi * count)
        loss = loss + jnp.where(target > 1, stirling, 0)
    return _reduce(loss, reduction)


def gaussian_nll_loss(
    input: Real,
    target: Num[Array, "..."],
    var: Real | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Real:
    """Negative log-likelihood of numbers under normal distributions.

    Args:
        input: their means.
        target: the numbers, of the input's shape.
        var: their variances, of the input's shape, or without its last axis, or with one axis
            of size 1, or one number for all. A negative one raises ValueError; inside `jax.jit`
            it makes the loss NaN.
        full: whether to add log(2 pi) / 2.
        eps: the least variance; those below count as it, with the gradient that it has.
        reduction: of the losses.

    >>> float(gaussian_nll_loss(jnp.zeros(1), jnp.ones(1), 1.0))
    0.5
    """
    _require_alike(input=input, target=target)
    var = jnp.asarray(var, input.dtype) if isinstance(var, float | int) else var
    if var.ndim and var.shape == input.shape[:-1]:
        var = var[..., None]
    _require_broadcast("var", var, input.shape)
    var = lifted(var, input.ndim)
    if (wrong := _first(var, var < 0)) is not None:
        raise ValueError(f"var holds {wrong}; use variances of 0 or more")
    held = lax.stop_gradient(jnp.where(var < 0, jnp.nan, jnp.maximum(var, eps)))
    var = held + (var - lax.stop_gradient(var))
    loss = 0.5 * (jnp.log(var) + (input - target) ** 2 / var)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return _reduce(loss, reduction)


def ctc_loss(
    log_probs: Float[Array, "t *b k"],
    targets: Num[Array, "..."],
    input_lengths: Num[Array, "..."] | Sequence[int],
    target_lengths: Num[Array, "..."] | Sequence[int],
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Real:
    """Negative log-likelihood of label sequences, summed over all their alignments in time.

    Graves, Fernández, Gomez, Schmidhuber (2006), "Connectionist temporal classification".

    The gradient is torch's, which takes the log-probabilities for the output of a log-softmax.

    Args:
        log_probs: logarithms of probabilities, time first: (t, b, k), or (t, k) for one sequence.
        targets: labels (b, s), padded with anything; or the labels of all sequences in one row;
            or (s,) for one sequence.
        input_lengths: how many steps of time count, (b,).
        target_lengths: how many labels count, (b,).
        blank: the class that stands for no label.
        reduction: of the losses (b,); "mean" divides each by its number of labels before.
        zero_infinity: whether sequences that have no alignment lose 0, without gradient, where
            they would lose infinity.

    >>> log_probs = jnp.log(jnp.full((2, 1, 2), 0.5))
    >>> round(float(ctc_loss(log_probs, jnp.array([[1]]), [2], [1])), 4)  # 11, 01, 10 of four
    0.2877
    """
    spans, counts = jnp.asarray(input_lengths), jnp.asarray(target_lengths)
    if log_probs.ndim == 2:
        ends = spans.reshape(1), counts.reshape(1)
        one = ctc_loss(log_probs[:, None], targets, *ends, blank, reduction, zero_infinity)
        return one.reshape(())
    time, batch, classes = log_probs.shape
    if not 0 <= blank < classes:
        raise ValueError(f"blank {blank} is not a class; use 0 to {classes - 1}")
    for name, lengths in (("input_lengths", spans), ("target_lengths", counts)):
        _require_labels(name, lengths, (batch,))
    spans, counts = spans.astype(int), counts.astype(int)
    if targets.ndim == 1:
        targets = _unpacked(targets, counts)
    _require_labels("targets", targets, (batch, targets.shape[-1]))
    wrong = _out_of_range("input_lengths", spans, time + 1)
    wrong |= _out_of_range("target_lengths", counts, targets.shape[-1] + 1)
    counted = jnp.arange(targets.shape[-1])[None] < counts[:, None]
    labels = jnp.where(counted, targets, blank)
    wrong |= _out_of_range("targets", labels, classes).any(-1)

    # The states of an alignment: a blank before, between and behind the labels.
    states = jnp.full((batch, 2 * labels.shape[-1] + 1), blank, labels.dtype)
    states = states.at[:, 1::2].set(jnp.clip(labels, 0, classes - 1))
    skips = jnp.pad(states[:, 2:] != states[:, :-2], ((0, 0), (2, 0)))
    emitted = jnp.take_along_axis(log_probs, states[None], axis=-1)
    live = jnp.arange(time)[:, None] < spans[None]

    def back(alpha, by):
        return jnp.pad(alpha, ((0, 0), (by, 0)), constant_values=-jnp.inf)[:, : alpha.shape[1]]

    def step(alpha, now):
        emitted, live = now
        ways = [alpha, back(alpha, 1), jnp.where(skips, back(alpha, 2), -jnp.inf)]
        return jnp.where(live[:, None], _log_sum_exp(ways) + emitted, alpha), None

    start = jnp.full(states.shape, -jnp.inf, log_probs.dtype).at[:, 0].set(0)
    alpha, _ = lax.scan(step, start, (emitted, live))
    last = 2 * jnp.clip(counts, 0, labels.shape[-1])[:, None]
    blank_end, label_end = (
        jnp.take_along_axis(alpha, index, 1)[:, 0] for index in (last, abs(last - 1))
    )
    loss = -_log_sum_exp([blank_end, jnp.where(counts > 0, label_end, -jnp.inf)])

    # torch's gradient lacks the part of a log-softmax that its backward would take away.
    total = jnp.exp(jnp.where(live[..., None], log_probs, -jnp.inf)).sum((0, 2))
    loss = loss + (total - lax.stop_gradient(total))
    if zero_infinity:
        loss = jnp.where(jnp.isinf(loss), 0, loss)
    loss = jnp.where(wrong, jnp.nan, loss)
    if reduction == "mean":
        loss = loss / jnp.maximum(counts, 1).astype(loss.dtype)
    return _reduce(loss, reduction)


def _unpacked(row: Array, counts: Array) -> Array:
    """The labels of all sequences in one row as (b, s), padded with whatever comes next."""
    if isinstance(counts, jax.core.Tracer):
        width = row.size
    else:
        spans = np.asarray(counts)
        width = int(spans.max(initial=0))
        if spans.sum() != row.size:
            raise ValueError(
                f"targets holds {row.size} labels; target_lengths sum to {spans.sum()}"
            )
    places = (jnp.cumsum(counts) - counts)[:, None] + jnp.arange(width)[None]
    return row.at[places].get(mode="fill", fill_value=0)


def _log_sum_exp(terms: list[Array]) -> Array:
    """Logarithm of a sum of exponentials; -inf, without gradient, where all terms are."""
    stacked = jnp.stack(terms)
    top = lax.stop_gradient(stacked.max(0))
    top = jnp.where(jnp.isneginf(top), 0, top)
    total = jnp.exp(stacked - top[None]).sum(0)
    return jnp.where(total > 0, jnp.log(jnp.where(total > 0, total, 1)) + top, -jnp.inf)


def vae_loss(
    output: Real,
    input: Real,
    mean: Float[Array, "b d"],
    logvar: Float[Array, "b d"],
    loss_func: Callable[[Array, Array], Array],
) -> Real:
    """Loss of a reconstruction, and the divergence of a code's distribution from the normal.

    Kingma, Welling (2013), "Auto-encoding variational Bayes", arXiv 1312.6114, appendix B.

    Args:
        output: the reconstruction.
        input: what it should be.
        mean: of the code, (b, d).
        logvar: logarithm of the code's variance, (b, d).
        loss_func: called with output and input, such as `mse_loss`.

    >>> zero = jnp.zeros((2, 3))
    >>> float(vae_loss(zero, zero + 2, zero + 1, zero, mse_loss))  # 4 + 3 / 2
    5.5
    """
    _require_alike(mean=mean, logvar=logvar)
    divergence = 0.5 * (jnp.exp(logvar) + mean**2 - 1 - logvar).sum(1)
    return loss_func(output, input) + divergence.mean()


def _above_zero(x: Array) -> Array:
    """The larger of x and 0, with gradient 1 at 0: torch's clamp, unlike its ReLU."""
    return jnp.where(x >= 0, x, 0)


def _abs(x: Array) -> Array:
    """Magnitude, with gradient 0 at 0; that of jnp.abs is 1 there."""
    return x * jnp.sign(x)


def _reduce(loss: Array, reduction: str, scale: Array | None = None, also: str = "") -> Array:
    """The losses as they are, their sum, or their mean, whose divisor is the sum of the scale."""
    if reduction == "mean":
        return loss.mean() if scale is None else loss.sum() / scale.sum()
    if reduction == "sum":
        return loss.sum()
    if reduction == "none":
        return loss
    raise ValueError(f"reduction {reduction!r} is unknown; use {also}mean, sum or none")


def _weighted(loss: Array, weight: Array | None, reduction: str) -> Array:
    return _reduce(loss if weight is None else loss * weight, reduction, weight)


def _of_labels(
    logs: Array, target: Array, weight: Array | None, ignore_index: int
) -> tuple[Array, Array]:
    """Minus the weighted entry at every label, and the weights: 0 where a label is ignored."""
    classes = logs.shape[-1]
    _require_labels("target", target, logs.shape[:-1])
    wrong = _out_of_range("target", target, classes, ignored=ignore_index)
    label = jnp.clip(target, 0, classes - 1)
    scale = jnp.ones(target.shape, logs.dtype) if weight is None else weight[label]
    ignored = target == ignore_index
    scale = jnp.where(ignored, 0, jnp.where(wrong, jnp.nan, scale))
    return jnp.where(ignored, 0, -scale * _picked(logs, label)), scale


def _is_class(label: Array, classes: int) -> Array:
    """Which of the classes (..., k) each label (...) is."""
    return lifted(jnp.arange(classes), label.ndim + 1) == label.astype(int)[..., None]


@jax.custom_jvp
def _picked(x: Array, label: Array) -> Array:
    """The entry of every row (..., k) at its label (...)."""
    return jnp.take_along_axis(x, label[..., None], -1)[..., 0]


@_picked.defjvp
def _picked_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    # Transposed, this selects; JAX's own scatters into zeros, which are written out first.
    x, label = primals
    chosen = _is_class(label, x.shape[-1])
    return _picked(x, label), jnp.where(chosen, tangents[0], 0).sum(-1)


def _out_of_range(name: str, labels: Array, end: int, ignored: int | None = None) -> Array:
    """Where labels are not from 0 to end - 1; an error where that can be seen."""
    wrong = (labels < 0) | (labels >= end)
    if ignored is not None:
        wrong &= labels != ignored
    if (first := _first(labels, wrong)) is not None:
        other = "" if ignored is None else f" (or {ignored})"
        raise ValueError(f"{name} holds {first}; use 0 to {end - 1}{other}")
    return wrong


def _first(array: Array, wrong: Array) -> float | int | None:
    """The first wrong entry, if any; None, too, while JAX traces and there are no numbers."""
    if isinstance(wrong, jax.core.Tracer) or not wrong.any():
        return None
    return array[wrong][0].item()


def _is_real(array: Array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating)


def _real(target: Array, input: Array) -> Array:
    """Integer targets in the dtype of the input, others as they are."""
    return target if _is_real(target) else target.astype(input.dtype)


def _require_alike(**arrays: Array | None) -> None:
    """Require real arrays, all of the first one's shape."""
    shape = next(array.shape for array in arrays.values() if array is not None)
    for name, array in arrays.items():
        if array is not None and not _is_real(array):
            raise ValueError(f"{name} has dtype {array.dtype}; use real numbers")
        if array is not None:
            _require_shape(name, array, shape)


def _require_classes(input: Array, weight: Array | None = None) -> None:
    _require_alike(input=input)
    if not input.ndim:
        raise ValueError("input is one number; its last axis has to be the classes")
    if weight is not None:
        _require_shape("weight", weight, input.shape[-1:])


def _require_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; use {shape}")


def _require_labels(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"{name} has dtype {array.dtype}; use integers")
    _require_shape(name, array, shape)


def _require_broadcast(name: str, array: Array | None, shape: tuple[int, ...]) -> None:
    if array is None:
        return
    pairs = zip(reversed(array.shape), reversed(shape), strict=False)
    if array.ndim > len(shape) or any(size not in (1, wanted) for size, wanted in pairs):
        raise ValueError(f"{name} has shape {array.shape}, which does not broadcast to {shape}")
