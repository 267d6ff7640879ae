"""Operators and tensor methods: torch's function and its translation."""

import pytest
import torch

from flaxnets.swap.twin import TranslationError, translate
from flaxnets.swap.twin.operations import OPERATIONS
from parity_tests.swap.twin.agreement import Applied, agree

torch.manual_seed(0)
X = torch.randn(3, 4, 5, dtype=torch.float64)
Y = torch.randn(3, 4, 5, dtype=torch.float64)
IMAGE = torch.randn(2, 3, 4, 5, dtype=torch.float64)
SQUARE = torch.randn(4, 4, dtype=torch.float64)
POSITIVE = X.abs() + 0.1
INSIDE = torch.rand(3, 4, dtype=torch.float64) * 0.9
WHOLE = torch.arange(1, 13).reshape(3, 4)
MASK = X > 0
SCALAR = torch.tensor(1.5, dtype=torch.float32)

CASES = {
    "add": (lambda x, y: torch.add(x, y) + 2, X, Y),
    "sub": (lambda x, y: x.sub(y) - 1, X, Y),
    "subtract": (torch.subtract, X, Y),
    "mul": (lambda x, y: 2 * (x + 1) * y, X, Y),
    "multiply": (torch.multiply, X, Y),
    "truediv": (lambda x, y: x / (y + 9) / 3, X, Y),
    "div": (
        lambda x, n: torch.div(x, n[0]) + x.div(2.5, rounding_mode="floor"),
        X[0, :, :4],
        WHOLE,
    ),
    "divide": (torch.divide, WHOLE, WHOLE + 1),
    "true_divide": (torch.true_divide, WHOLE, WHOLE + 2),
    "floordiv": (lambda n, m: n // m + n // 2, WHOLE, WHOLE + 2),
    "floor_divide": (torch.floor_divide, WHOLE, WHOLE.flip(0)),
    "mod": (lambda x, n: (x % 0.7, -n % 5), X, WHOLE),
    "remainder": (torch.remainder, WHOLE, WHOLE.flip(1)),
    "pow": (lambda x, n: (x**2, 2**x, x.pow(1.5), n**2, -(x**2), (-x) ** 2), POSITIVE, WHOLE),
    "eq": (lambda n: (n == 3, n.eq(4)), WHOLE),
    "ne": (lambda n: n != 3, WHOLE),
    "not_equal": (lambda n: torch.not_equal(n, 3), WHOLE),
    "lt": (lambda x, y: x < y, X, Y),
    "less": (torch.less, X, Y),
    "le": (lambda x: x <= 0.1, X),
    "less_equal": (torch.less_equal, X, Y),
    "gt": (lambda x, y: (x > y) & (x > 0), X, Y),
    "greater": (torch.greater, X, Y),
    "ge": (lambda x: x >= 0.1, X),
    "greater_equal": (torch.greater_equal, X, Y),
    "and": (lambda m, n: m & ~n, MASK, MASK.flip(0)),
    "bitwise_and": (torch.bitwise_and, WHOLE, WHOLE + 1),
    "or": (lambda m, n: m | n, MASK, MASK.flip(0)),
    "bitwise_or": (torch.bitwise_or, WHOLE, WHOLE + 1),
    "xor": (lambda m, n: m ^ n, MASK, MASK.flip(0)),
    "bitwise_xor": (torch.bitwise_xor, WHOLE, WHOLE + 1),
    "logical_and": (torch.logical_and, WHOLE, WHOLE - 3),
    "logical_or": (torch.logical_or, WHOLE, WHOLE - 3),
    "logical_xor": (torch.logical_xor, WHOLE, WHOLE - 3),
    "logical_not": (torch.logical_not, WHOLE - 3),
    "invert": (lambda m: ~m, MASK),
    "bitwise_not": (torch.bitwise_not, WHOLE),
    "neg": (lambda x: -x * 2 - -x, X),
    "negative": (torch.negative, X),
    "rsub": (lambda x: torch.rsub(x, 3) + (1 - x), X),
    "abs": (lambda x: (abs(x), torch.abs(x)), X),
    "absolute": (torch.absolute, X),
    "round": (lambda x: torch.round(x * 2.5), X),
    "tanh": (lambda x, n: (x.tanh(), torch.sin(n)), X, WHOLE),
    **{name: (getattr(torch, name), X) for name in ("exp", "sin", "cos", "tan", "sinh", "cosh")},
    **{name: (getattr(torch, name), X) for name in ("expm1", "exp2", "reciprocal", "sigmoid")},
    **{name: (getattr(torch, name), X) for name in ("isnan", "isinf", "isfinite", "floor", "ceil")},
    **{name: (getattr(torch, name), X) for name in ("trunc", "sign", "square", "erf", "atan")},
    **{name: (getattr(torch, name), POSITIVE) for name in ("log", "sqrt", "log1p", "log2")},
    **{name: (getattr(torch, name), POSITIVE) for name in ("log10", "rsqrt", "arctan")},
    **{name: (getattr(torch, name), INSIDE) for name in ("asin", "arcsin", "acos", "arccos")},
    **{name: (getattr(torch, name), X, Y) for name in ("maximum", "minimum", "atan2", "arctan2")},
    "logaddexp": (torch.logaddexp, X, Y),
    "clamp": (lambda x: x.round().clamp(-1, 1) * x + x.clamp(max=0.3), X),
    "clip": (lambda x, y: torch.clip(x, y, y + 1), X, Y),
    "clamp_min": (lambda x: x.clamp_min(0.2), X),
    "clamp_max": (lambda x: x.clamp_max(0.2), X),
    "where": (lambda x, y: torch.where(x > y, x, 0.5 * y) + torch.where(x > 0, x, 0.0), X, Y),
    "masked_fill": (lambda x, m: x.masked_fill(m, -1e9) + x.masked_fill(m, x.sum()), X, MASK),
    "sum": (lambda x, m: (x.sum(), x.sum(1), x.sum((0, -1), keepdim=True), m.sum(-1)), X, MASK),
    "prod": (lambda x: (x.prod(-1), x.prod()), X),
    "any": (lambda m: (m.any(), m.any(1)), MASK),
    "all": (lambda m: (m.all(), torch.all(m, dim=-1, keepdim=True)), MASK),
    "amax": (lambda x: (x.amax(1), x.round().amax((0, 2))), X),
    "amin": (lambda x: x.amin(-1, keepdim=True), X),
    "mean": (lambda x, m: (x.mean(), torch.mean(x, dim=1), m.float().mean(axis=-1)), X, MASK),
    "var": (lambda x: (x.var(), x.var(1), x.var(-1, unbiased=False), x.var((0, 1), True)), X),
    "std": (lambda x: (x.std(-1), x.std(False), x.std(1, correction=0, keepdim=True)), X),
    "max": (lambda x, y: (x.max(), *x.round().max(1), torch.max(x, y), x.max(-1)[0]), X, Y),
    "min": (lambda x: (x.min(), *torch.min(x, dim=0, keepdim=True), x.min(1).values), X),
    "argmax": (lambda x: (x.argmax(), x.argmax(1), x.argmax(-1, keepdim=True)), X),
    "argmin": (lambda x: x.argmin(1), X),
    "logsumexp": (lambda x: torch.logsumexp(x, 1) + x.logsumexp(dim=(1,)), X),
    "norm": (lambda x: (x.norm(), torch.norm(x, dim=1), (0 * x).norm(dim=-1)), X),
    "linalg_norm": (lambda x: torch.linalg.norm(x), X[0, 0]),
    "linalg_vector_norm": (lambda x: torch.linalg.vector_norm(x, dim=-1), X),
    "cumsum": (lambda x: x.cumsum(1), X),
    "cumprod": (lambda x: torch.cumprod(x, dim=-1), X),
    "topk": (lambda x: x.topk(2), X),
    "matmul": (lambda x, a: (x.matmul(a.t()[:, :5].mT @ a), a @ a[0], 2 * a @ a), X.mT, SQUARE),
    "bmm": (lambda x, y: torch.bmm(x, y.transpose(1, 2)), X, Y),
    "mm": (torch.mm, SQUARE, SQUARE + 1),
    "mv": (lambda a: a.mv(a[1]), SQUARE),
    "dot": (lambda a: a[0].dot(a[1]), SQUARE),
    "linear": (lambda x, a: torch.nn.functional.linear(x.mT, a, a[0]), X, SQUARE),
    "addmm": (lambda a: torch.addmm(a[0], a, a), SQUARE),
    "baddbmm": (lambda x, y: torch.baddbmm(x[:, :, :4], x, y.mT), X, Y),
    "einsum": (lambda x, y: torch.einsum("bij,bkj->bik", x, y), X, Y),
    "outer": (lambda a: torch.outer(a[0], a[1]), SQUARE),
    "ger": (lambda a: torch.ger(a[0], a[1]), SQUARE),
    "to": (
        lambda x, n: (n.to(x.dtype) * x[0, 0, :4], x.to("cpu"), n.to(x), x.to(torch.bool)),
        X,
        WHOLE,
    ),
    "type_as": (lambda x, n: n.type_as(x), X, WHOLE),
    "float": (lambda x: x.float().to(x.dtype), X),
    "double": (lambda n: n.double() / 3, WHOLE),
    "half": (lambda x: x.half().double(), X),
    "bfloat16": (lambda x: x.bfloat16().double(), X),
    "long": (lambda x: (3 * x).long(), X),
    "int": (lambda x: (3 * x).int() + 1, X),
    "bool": (lambda n: (n - 3).bool(), WHOLE),
    "contiguous": (lambda x: x.contiguous() * 1, X),
    "clone": (lambda x: x.clone() + x.cpu(), X),
    "cpu": (lambda x: x.cpu() * 2, X),
    "cuda": None,  # there is none here
    "requires_grad": None,  # sets a flag of torch
    "positive": (torch.positive, X),
    "pos": (lambda x: +x * 2, X),
    "copy": (lambda x, y: x.clone().add_(0).copy_(y[0]) * x, X, Y),
    "detach": (lambda x: x.detach() * x + x.data, X),
    "getattr": (lambda a, x: (a.T + a, x.mT), SQUARE, X),
    "finfo": (lambda x: x.masked_fill(x > 0, torch.finfo(x.dtype).min), X),
}
ON_IMAGES = {
    "elementwise": lambda x: torch.exp(x) * 2 + x**2 - x.abs().clamp(0.2, 1),
    "reductions": lambda x: (x.mean((2, 3)), x.sum(1), x.amax(dim=2), x.var(1, keepdim=True) * x),
    "lookups": lambda x: (x.argmax(1), *x.max(1), x.softmax(1), x.cumsum(1), x.norm(dim=1)),
    "different axes": lambda x: x + x.mean((0, 1)) + x[0] * x.sum(),
    "comparisons": lambda x: torch.where(x > x.mean(1, keepdim=True), x, -x),
}


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name]])
def test_operation(name):
    """The function of torch and its translation, outputs and gradients."""
    function, *inputs = CASES[name]
    agree(function, *inputs)


def test_all_operations_have_a_case():
    """The table and the cases."""
    assert CASES.keys() == OPERATIONS.keys()


@pytest.mark.parametrize("name", ON_IMAGES)
def test_on_images(name):
    """The same on what is held with channels last."""
    source = agree(ON_IMAGES[name], IMAGE)
    assert "rearrange" not in source or name in ("reductions", "different axes")


def test_promotion():
    """Of torch's dtypes and JAX's: a tensor without axes does not widen one that has some."""
    x = torch.randn(3, dtype=torch.float32)
    agree(lambda x, s: x * s, x, torch.tensor(2.0, dtype=torch.float64), gradients=False)
    agree(lambda n: n * 0.5 + n / 2, WHOLE, gradients=False)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: torch.linalg.inv(x), "linalg_inv has no translation"),
        (lambda x: x.add(x, alpha=2), "alpha 2"),
        (lambda x: x.norm(p=1), "order 1"),
        (lambda x: x.topk(2, largest=False), "topk"),
        (lambda x: x.div(2, rounding_mode="trunc"), "rounding_mode"),
        (lambda x: torch.round(x, decimals=2), "round with these arguments"),
    ],
)
def test_refused(function, reason):
    """What has no exact translation is named with its line."""
    with pytest.raises(TranslationError, match=reason) as refused:
        translate(Applied(function), [SQUARE])
    (problem,) = refused.value.problems
    assert problem.file == __file__
    assert "lambda x" in str(problem)
