"""Losses against torch.nn.functional's: values and gradients over a grid of options.

Numbers are rounded to quarters where a loss has kinks, so that many of them lie exactly there.
"""

import functools
import inspect
import itertools
import math
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from hypothesis import example, given, settings
from hypothesis import strategies as st

import torch_ref.layers
from flaxnets import layers
from flaxnets.parity.compare import compare
from flaxnets.parity.tolerances import FLOAT64

RNG = np.random.Generator(np.random.Philox(0))
K = 5
REDUCTIONS = ("mean", "sum", "none")
ELSEWHERE = {
    "linear_cross_entropy": "a Linear and a cross_entropy that torch computes in pieces",
}


class Case(NamedTuple):
    """A loss and what it is called with; `fixed` arrays are those torch cannot differentiate by."""

    name: str
    arrays: dict[str, np.ndarray]
    options: Mapping[str, Any] = MappingProxyType({})
    fixed: tuple[str, ...] = ()

    def __str__(self) -> str:
        shapes = "-".join(f"{name}{value.shape}" for name, value in self.arrays.items())
        return f"{self.name}-{shapes}-{dict(self.options)}".replace(" ", "")


def normal(*shape):
    """Real numbers of both signs."""
    return RNG.standard_normal(shape)


def quarters(*shape):
    """Real numbers, many of them equal."""
    return np.round(4 * normal(*shape)) / 4


def positive(*shape):
    """Real numbers above 0."""
    return RNG.uniform(0.1, 2, shape)


def signs(*shape):
    """Numbers 1 and -1."""
    return RNG.choice([-1.0, 1.0], shape)


def labels(*shape):
    """Classes."""
    return RNG.integers(0, K, shape)


def probabilities(*shape):
    """Rows that sum to 1."""
    values = np.exp(normal(*shape))
    return values / values.sum(-1, keepdims=True)


def elementwise():
    """Losses of numbers and distributions."""
    pair = {"input": quarters(6, 7), "target": quarters(6, 7)}
    for name in ("mse_loss", "l1_loss", "huber_loss"):
        yield Case(name, pair)
        yield Case(name, {**pair, "weight": positive(6, 7)})
    for beta in (1.0, 0.5, 0.0):
        yield Case("smooth_l1_loss", pair, {"beta": beta})
    for delta in (0.5, 2.0):
        yield Case("huber_loss", pair, {"delta": delta})
    for log_input, full in itertools.product((True, False), repeat=2):
        arrays = {"input": positive(6, 7), "target": np.round(4 * positive(6, 7)) / 4 + 0.25}
        options = {"log_input": log_input, "full": full, "eps": 0.01}
        yield Case("poisson_nll_loss", arrays, options)
    for shape, full in itertools.product(((6, 7), (6, 1), (6,), None), (True, False)):
        options = {"full": full, "eps": 0.5}
        if shape is None:
            yield Case("gaussian_nll_loss", pair, {**options, "var": 0.75})
        else:
            var = np.round(4 * positive(*shape)) / 4  # 0, below eps, eps itself and above
            yield Case("gaussian_nll_loss", {**pair, "var": var}, options)
    for log_target in (True, False):
        target = probabilities(6, K)
        target = np.log(target) if log_target else target
        arrays = {"input": normal(6, K), "target": target}
        yield Case("kl_div", arrays, {"log_target": log_target})
        yield Case("kl_div", arrays, {"log_target": log_target, "reduction": "batchmean"})
    rare = {"input": normal(2, 2), "target": np.eye(2)}
    yield Case("kl_div", rare, fixed=("target",))


def binary():
    """Losses of yes and no."""
    inside = {"input": RNG.uniform(0, 1, (6, K)), "target": RNG.uniform(0, 1, (6, K))}
    edges = {"input": np.array([0.0, 1, 0, 1, 1e-50, 1e-13, 0.5]), "target": np.eye(7)[1]}
    logits = {"input": np.concatenate([normal(5, K), [[0, 40, -40, 800, -800]]])}
    logits["target"] = inside["target"]
    for shape in (None, (6, K), (K,), (6, 1)):
        weight = {} if shape is None else {"weight": positive(*shape)}
        yield Case("binary_cross_entropy", inside | weight, fixed=("weight",))
        for pos in (None, (K,), (6, K)):
            pos_weight = {} if pos is None else {"pos_weight": positive(*pos)}
            arrays = logits | weight | pos_weight
            yield Case("binary_cross_entropy_with_logits", arrays, fixed=("weight", "pos_weight"))
    yield Case("binary_cross_entropy", edges, fixed=("target",))
    for weight in ({}, {"weight": positive(K)}):
        yield Case("multilabel_soft_margin_loss", logits | weight)


def of_classes():
    """Losses with labels."""
    for shape, weighted, ignored in itertools.product(
        ((6,), (), (2, 3, 4)), (False, True), (-100, 1)
    ):
        target = labels(*shape)
        if shape:
            target.flat[::3] = ignored
        weight = {"weight": positive(K)} if weighted else {}
        options = {"ignore_index": ignored}
        arrays = {"input": normal(*shape, K), "target": target, **weight}
        yield Case("nll_loss", arrays, options, ("weight",))
        for smoothing in (0.0, 0.1):
            soft = {**arrays, "target": probabilities(*shape, K)}
            smooth = {"label_smoothing": smoothing}
            yield Case("cross_entropy", arrays, options | smooth, ("weight",))
            if ignored == 1:
                yield Case("cross_entropy", soft, smooth)
    for shape, p, margin, weighted in itertools.product(
        ((6,), ()), (1, 2), (1.0, 0.5), (False, True)
    ):
        weight = {"weight": positive(K)} if weighted else {}
        arrays = {"input": quarters(*shape, K), "target": labels(*shape), **weight}
        yield Case("multi_margin_loss", arrays, {"p": p, "margin": margin}, ("weight",))
    several = np.array([[3, 0, -1, 1, 2], [-1, 2, 2, 2, 2], [4, 3, 2, 1, 0], [2, 2, -1, -1, 0]])
    for rows in (slice(None), 0):
        yield Case(
            "multilabel_margin_loss", {"input": quarters(4, K)[rows], "target": several[rows]}
        )


def embeddings():
    """Losses of scores and vectors with a margin."""
    yield Case("soft_margin_loss", {"input": normal(6, 7), "target": signs(6, 7)}, {}, ("target",))
    for margin in (0.5, 1.0):
        targets = RNG.integers(-1, 2, (6, 7))
        arrays = {"input": quarters(6, 7), "target": targets}
        yield Case("hinge_embedding_loss", arrays, {"margin": margin})
    for margin, shape in itertools.product((0.0, 0.5), ((6,), ())):
        pair = {"input1": quarters(*shape, 3), "input2": quarters(*shape, 3)}
        pair["target"] = np.asarray(signs(*shape)).astype(int)
        yield Case("cosine_embedding_loss", pair, {"margin": margin})
        ranked = {"input1": quarters(6, 7), "input2": quarters(6, 7), "target": signs(6, 7)}
        yield Case("margin_ranking_loss", ranked, {"margin": margin})
    right = {"input1": np.eye(3)[:2], "input2": np.eye(3)[1:], "target": np.array([-1, 1])}
    yield Case("cosine_embedding_loss", right)  # a cosine of 0, which is the margin
    triplet = {name: quarters(40, 2) for name in ("anchor", "positive", "negative")}
    triplet["anchor"][:2] = triplet["positive"][:2]
    for p, (swap, eps) in itertools.product(
        (1.0, 2.0, 3.0, 0.5, math.inf), ((False, 0.0), (True, 1e-6))
    ):
        yield Case("triplet_margin_loss", triplet, {"p": p, "swap": swap, "eps": eps})
    for margin, swap in itertools.product((0.5, 1.0), (False, True)):
        options = {"margin": margin, "swap": swap}
        yield Case("triplet_margin_with_distance_loss", triplet, options)


CASES = [*elementwise(), *binary(), *of_classes(), *embeddings()]


def channels_first(array):
    """The class axis, the last, as torch's axis 1."""
    return np.moveaxis(array, -1, 1) if array.ndim > 2 else array


def results(case, ours, theirs, jit=False):
    """Value and gradients of the two sides by name."""
    arrays, fixed = case.arrays, case.fixed
    wanted = [n for n, x in arrays.items() if x.dtype.kind == "f" and n not in fixed]
    by_class = case.name in ("cross_entropy", "nll_loss")
    moves = [n for n in arrays if by_class and arrays[n].shape == arrays["input"].shape]
    with jax.enable_x64(True):
        given = {name: jnp.asarray(value) for name, value in arrays.items()}
        rest = {name: value for name, value in given.items() if name not in wanted}

        def loss(real, rest):
            return ours(**real, **rest, **case.options)

        loss = jax.jit(loss) if jit else loss
        value, pull = jax.vjp(lambda real: loss(real, rest), {n: given[n] for n in wanted})
        cotangent = np.asarray(np.random.default_rng(1).standard_normal(value.shape))
        (gradients,) = pull(jnp.asarray(cotangent))
    mine = {"value": np.asarray(value), **{n: np.asarray(g) for n, g in gradients.items()}}
    mine |= {name: channels_first(mine[name]) for name in moves if name in mine}

    tensors = {
        n: torch.tensor(np.ascontiguousarray(channels_first(x)) if n in moves else x)
        for n, x in arrays.items()
    }
    for name in wanted:
        tensors[name].requires_grad_()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "reduction: 'mean' divides")  # kl_div, as documented
        value = theirs(**tensors, **case.options)
    found = torch.autograd.grad(
        value, [tensors[n] for n in wanted], torch.tensor(cotangent), allow_unused=True
    )
    truth = {"value": value.detach().numpy()}
    for name, gradient in zip(wanted, found, strict=True):
        # A target that is only compared with 1 and -1 has no gradient in torch, and 0 in JAX.
        truth[name] = np.zeros_like(mine[name]) if gradient is None else gradient.numpy()
    return truth, mine


def agree(case, jit=False):
    """Require that both sides agree."""
    ours, theirs = getattr(layers, case.name), getattr(F, case.name)
    difference = compare(*results(case, ours, theirs, jit))
    assert difference.error <= FLOAT64, difference


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss(case, reduction):
    """Values and gradients by every array agree."""
    agree(case._replace(options={"reduction": reduction, **case.options}))


@pytest.mark.parametrize("case", {case.name: case for case in CASES}.values(), ids=str)
def test_jitted(case):
    """The same holds where JAX traces and labels cannot be looked at."""
    agree(case, jit=True)


def test_all_are_here():
    """Every loss of torch.nn.functional is here, and is tested, or has a reason not to be."""
    theirs = {name for name in dir(F) if any(part in name for part in ("loss", "cross_en", "_div"))}
    tested = {case.name for case in CASES} | {"ctc_loss"}
    assert theirs == tested | ELSEWHERE.keys()
    assert tested <= set(layers.__all__)


@pytest.mark.parametrize("name", sorted({case.name for case in CASES} | {"ctc_loss"}))
def test_arguments(name):
    """Arguments have torch's names, order and defaults, less those that torch has deprecated."""

    def arguments(function):
        found = inspect.signature(function).parameters
        return [(n, p.default) for n, p in found.items() if n not in ("size_average", "reduce")]

    assert arguments(getattr(layers, name)) == arguments(getattr(F, name))


@settings(max_examples=20, deadline=None)
@given(
    target=st.lists(st.integers(-1, K - 1), min_size=4, max_size=4),
    smoothing=st.sampled_from([0.0, 0.3]),
    weighted=st.booleans(),
    reduction=st.sampled_from(REDUCTIONS),
)
@example(target=[0, 0, -1, 0], smoothing=0.3, weighted=True, reduction="mean")  # of weight 0
def test_cross_entropy_of_any_labels(target, smoothing, weighted, reduction):
    """Whatever labels are ignored, both agree; where all are, both means are NaN."""
    arrays = {"input": np.arange(20.0).reshape(4, K) % 7, "target": np.array(target)}
    arrays |= {"weight": np.array([0.0, 0.5, 1.0, 1.5, 2.0])} if weighted else {}
    options = {"ignore_index": -1, "label_smoothing": smoothing, "reduction": reduction}
    case = Case("cross_entropy", arrays, options, ("weight",))
    truth, mine = results(case, layers.cross_entropy, F.cross_entropy)
    for name, values in truth.items():
        np.testing.assert_allclose(mine[name], values, atol=FLOAT64, rtol=FLOAT64)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_pos_weight_of_images(reduction):
    """`pos_weight` (k,) holds for the last axis; torch wants (k, 1, 1) for axis 1."""
    x, y, w = normal(2, 3, 4, K), RNG.uniform(0, 1, (2, 3, 4, K)), positive(K)
    with jax.enable_x64(True):
        mine = layers.binary_cross_entropy_with_logits(
            jnp.asarray(x), jnp.asarray(y), reduction=reduction, pos_weight=jnp.asarray(w)
        )
    theirs = F.binary_cross_entropy_with_logits(
        *(torch.tensor(channels_first(a)) for a in (x, y)),
        reduction=reduction,
        pos_weight=torch.tensor(w[:, None, None]),
    )
    mine = channels_first(np.asarray(mine))
    assert compare({"value": theirs.numpy()}, {"value": mine}).error <= FLOAT64


def test_own_distance():
    """A distance of the caller's own is used, for the swap too."""
    case = Case("", {name: quarters(8, 2) for name in ("anchor", "positive", "negative")})
    ours = functools.partial(
        layers.triplet_margin_with_distance_loss,
        distance_function=lambda x, y: ((x - y) ** 2).sum(-1),
        swap=True,
    )
    theirs = functools.partial(
        F.triplet_margin_with_distance_loss,
        distance_function=lambda x, y: ((x - y) ** 2).sum(-1),
        swap=True,
    )
    assert compare(*results(case, ours, theirs)).error <= FLOAT64


def test_vae_loss():
    """Both twins' `vae_loss` agree in value and gradients."""
    arrays = {"output": normal(6, 7), "input": normal(6, 7)}
    arrays |= {"mean": normal(6, 3), "logvar": normal(6, 3)}
    ours = functools.partial(layers.vae_loss, loss_func=layers.mse_loss)
    theirs = functools.partial(torch_ref.layers.vae_loss, loss_func=F.mse_loss)
    assert compare(*results(Case("", arrays), ours, theirs)).error <= FLOAT64


TIME, BATCH, LABELS = 7, 4, 3


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    ("blank", "row", "normalised"), [(0, False, True), (2, True, False), (K - 1, False, False)]
)
def test_ctc_loss(reduction, blank, row, normalised):
    """Repeated, single, missing and too many labels; log-probabilities that sum to 1 or not."""
    x = normal(TIME, BATCH, K)
    x = np.log(np.exp(x) / np.exp(x).sum(-1, keepdims=True)) if normalised else x
    one, two = [k for k in range(K) if k != blank][:2]
    targets = np.array([[one, one, two], [two, one, 99], [one, -7, 0], [0, 0, 0]])
    lengths, spans = np.array([3, 2, 1, 0]), np.array([7, 5, 3, 4])
    if row:
        targets = np.concatenate([t[:n] for t, n in zip(targets, lengths, strict=True)])
    arrays = {"log_probs": x, "targets": targets, "input_lengths": spans, "target_lengths": lengths}
    agree(Case("ctc_loss", arrays, {"blank": blank, "reduction": reduction}), jit=row)


# Compiled once for all examples.
CTC = {
    zero_infinity: jax.jit(functools.partial(layers.ctc_loss, zero_infinity=zero_infinity))
    for zero_infinity in (False, True)
}


@settings(max_examples=25, deadline=None)
@given(
    targets=st.lists(st.integers(1, 2), min_size=BATCH * LABELS, max_size=BATCH * LABELS),
    counts=st.lists(st.integers(0, LABELS), min_size=BATCH, max_size=BATCH),
    spans=st.lists(st.integers(0, TIME), min_size=BATCH, max_size=BATCH),
)
def test_ctc_loss_of_any_lengths(targets, counts, spans):
    """Sequences too short for their labels lose 0 without gradient, or infinity, on both sides."""
    arrays = {
        "log_probs": np.linspace(-2, -1, TIME * BATCH * K).reshape(TIME, BATCH, K),
        "targets": np.array(targets).reshape(BATCH, LABELS),
        "input_lengths": np.array(spans),
        "target_lengths": np.array(counts),
    }
    theirs = functools.partial(F.ctc_loss, zero_infinity=True)
    difference = compare(*results(Case("ctc_loss", arrays), CTC[True], theirs))
    assert difference.error <= FLOAT64, difference
    truth, mine = results(Case("ctc_loss", arrays), CTC[False], F.ctc_loss)
    np.testing.assert_allclose(mine["value"], truth["value"], atol=FLOAT64, rtol=FLOAT64)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ctc_loss_of_one(reduction):
    """One sequence without a batch axis."""
    arrays = {
        "log_probs": np.log(probabilities(TIME, K)),
        "targets": np.array([1, 2, 2]),
        "input_lengths": np.array(6),
        "target_lengths": np.array(3),
    }
    agree(Case("ctc_loss", arrays, {"reduction": reduction}))


def test_finite_where_torch_is_not():
    """Gradients that the docstrings promise to be finite are."""
    half, edge = jnp.array([0.5, 0.5]), jnp.array([0.0, 1.0])
    finite = [
        jax.grad(layers.kl_div, 1)(jnp.log(half), edge),
        jax.grad(layers.binary_cross_entropy, 1)(edge, half),
        jax.grad(layers.soft_margin_loss)(jnp.array([-1e4, 1e4]), jnp.ones(2)),
        jax.grad(layers.poisson_nll_loss, 1)(half, edge, full=True),
        jax.grad(layers.triplet_margin_loss)(half[None], half[None], edge[None], eps=0.0),
    ]
    assert all(jnp.isfinite(gradient).all() for gradient in finite)


ROWS = jnp.zeros((2, K))
PAIR = jnp.zeros(2), jnp.zeros(2)
TIMES = jnp.zeros((TIME, 2, K))
ONES = jnp.ones((2, 1), int)
OUT_OF_RANGE = {
    "target holds 5; use 0 to 4 (or -100)": lambda t: layers.cross_entropy(
        ROWS, t(jnp.array([0, 5]))
    ),
    "target holds -1; use 0 to 4 (or -100)": lambda t: layers.nll_loss(ROWS, t(jnp.array([0, -1]))),
    "target holds 7; use 0 to 4": lambda t: layers.multi_margin_loss(ROWS, t(jnp.array([0, 7]))),
    "target holds -2; use 0 to 4 (or -1)": lambda t: layers.multilabel_margin_loss(
        ROWS, t(jnp.full((2, K), -2))
    ),
    "input holds 1.5; use probabilities from 0 to 1": lambda t: layers.binary_cross_entropy(
        t(jnp.array([0.5, 1.5])), PAIR[0]
    ),
    "var holds -1.0; use variances of 0 or more": lambda t: layers.gaussian_nll_loss(
        *PAIR, t(jnp.array([1.0, -1.0]))
    ),
    "targets holds 6; use 0 to 4": lambda t: layers.ctc_loss(TIMES, t(6 * ONES), [7, 7], [1, 1]),
    "input_lengths holds 8; use 0 to 7": lambda t: layers.ctc_loss(
        TIMES, ONES, t(jnp.array([8, 7])), [1, 1]
    ),
    "target_lengths holds 2; use 0 to 1": lambda t: layers.ctc_loss(
        TIMES, ONES, [7, 7], t(jnp.array([1, 2]))
    ),
}


@pytest.mark.parametrize("message", OUT_OF_RANGE)
def test_out_of_range(message):
    """What is out of range is named where it can be seen; under jit it makes the loss NaN."""
    call = OUT_OF_RANGE[message]
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole message is compared)
        call(lambda array: array)
    assert str(error.value) == message
    held = []
    call_once = jax.jit(lambda array: call(lambda _: array))
    with pytest.raises(ValueError):  # noqa: PT011 (this only finds out the array)
        call(lambda array: held.append(array) or array)
    assert jnp.isnan(call_once(held[0]))


def test_out_of_range_in_grad():
    """A label out of range is seen under `jax.grad`, too, and spoils gradients under jit."""
    loss = jax.grad(layers.cross_entropy)
    with pytest.raises(ValueError, match="target holds 5"):
        loss(ROWS, jnp.array([0, 5]))
    assert jnp.isnan(jax.jit(loss)(ROWS, jnp.array([0, 5]))).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layers.mse_loss(*PAIR, reduction="avg"), "reduction 'avg' is unknown; use mean"),
        (lambda: layers.kl_div(*PAIR, reduction="avg"), "'avg' is unknown; use batchmean, mean"),
        (lambda: layers.mse_loss(ROWS, PAIR[0]), r"target has shape \(2,\); use \(2, 5\)"),
        (lambda: layers.l1_loss(PAIR[0], ONES[0]), "target has dtype int32; use real numbers"),
        (lambda: layers.smooth_l1_loss(*PAIR, beta=-1.0), "beta -1.0 is negative"),
        (lambda: layers.huber_loss(*PAIR, delta=0.0), "delta 0.0 is not positive"),
        (lambda: layers.cross_entropy(ROWS, ROWS[0]), r"target has shape \(5,\); use \(2, 5\)"),
        (lambda: layers.cross_entropy(ROWS, ONES), r"target has shape \(2, 1\); use \(2,\)"),
        (lambda: layers.cross_entropy(ROWS, ONES[:, 0], ROWS), r"weight has shape \(2, 5\); use"),
        (
            lambda: layers.cross_entropy(ROWS, ROWS, label_smoothing=2.0),
            "label_smoothing 2.0 is not between 0 and 1",
        ),
        (lambda: layers.nll_loss(ROWS, PAIR[0]), "target has dtype float32; use integers"),
        (lambda: layers.multi_margin_loss(ROWS, ONES[:, 0], p=3), "p 3 is unknown; use 1 or 2"),
        (
            lambda: layers.binary_cross_entropy_with_logits(*PAIR, pos_weight=jnp.ones(3)),
            r"pos_weight has shape \(3,\), which does not broadcast to \(2,\)",
        ),
        (
            lambda: layers.triplet_margin_loss(ROWS, ROWS, ROWS, margin=0.0),
            "margin 0.0 is not positive",
        ),
        (lambda: layers.triplet_margin_loss(ROWS, ROWS, ROWS, p=0.0), "p 0.0 is not positive"),
        (
            lambda: layers.ctc_loss(TIMES, ONES, [7, 7], [1, 1], blank=5),
            "blank 5 is not a class; use 0 to 4",
        ),
        (
            lambda: layers.ctc_loss(TIMES, ONES, [7], [1, 1]),
            r"input_lengths has shape \(1,\); use \(2,\)",
        ),
        (
            lambda: layers.ctc_loss(TIMES, ONES[0], [7, 7], [1, 1]),
            "targets holds 1 labels; target_lengths sum to 2",
        ),
        (
            lambda: layers.ctc_loss(TIMES, ONES.astype(np.float32), [7, 7], [1, 1]),
            "targets has dtype float32; use integers",
        ),
    ],
)
def test_wrong_arguments(call, message):
    """Each wrong argument is named with its value and what would be right."""
    with pytest.raises(ValueError, match=message):
        call()


def test_labels_of_a_closure():
    """Labels in one row may come from outside of a jitted function."""
    row, spans, counts = ONES[:, 0], jnp.array([7, 7]), jnp.array([1, 1])

    def call():
        return layers.ctc_loss(TIMES, row, spans, counts)

    np.testing.assert_allclose(jax.jit(call)(), call(), rtol=1e-6)
