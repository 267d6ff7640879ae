"""Torch's operators and tensor methods as JAX text, each its exact equivalent, gradients included.

Every translation gets the body that it stands in and torch's own arguments. Numbers that JAX
would round or promote otherwise than torch are cast by name.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from flaxnets.swap.twin import layouts
from flaxnets.swap.twin.body import DTYPES, Body, UntranslatableError
from flaxnets.swap.twin.expressions import (
    AND,
    ATOM,
    COMPARE,
    OR,
    POWER,
    SUM,
    TERM,
    UNARY,
    XOR,
    Expr,
    literal,
)
from flaxnets.swap.twin.layouts import Layout

OPERATIONS: dict[str, Callable[..., Expr]] = {}


def translates(*names: str) -> Callable[[Callable], Callable]:
    """Enter a translation into the table under torch's names."""

    def enter(function: Callable) -> Callable:
        OPERATIONS.update(dict.fromkeys(names, function))
        return function

    return enter


def aligned(body: Body, *args: Any) -> tuple[list[Expr], Layout]:
    """Arguments that are combined entry by entry, all in one layout."""
    arrays = [arg for arg in args if body.ndim(arg) > 0]
    layout = next((found for a in arrays if (found := body.layout_of(a)) is not None), None)
    if len({body.ndim(array) for array in arrays}) > 1:
        layout = None
    return [body.held(arg, layout if body.ndim(arg) else None) for arg in args], layout


def is_float(body: Body, arg: Any) -> bool:
    """Whether an argument is real: a tensor of such a dtype, or a float."""
    example = body.example(arg)
    return example.is_floating_point() if torch.is_tensor(example) else isinstance(example, float)


def real(body: Body, arg: Any, expr: Expr) -> Expr:
    """An argument as a real array: torch takes integers as its default dtype."""
    if torch.is_tensor(body.example(arg)) and not is_float(body, arg):
        return Expr(f"{expr.within(ATOM)}.astype(float)", expr.layout)
    return expr


def dims_of(body: Body, x: Any, dim: Any) -> list[int]:
    """Axes, counted in torch's order; all where none is named."""
    if dim is None or dim == () or dim == []:
        return list(range(body.ndim(x)))
    return list(dim) if isinstance(dim, tuple | list) else [dim]


def _binary(symbol: str, rank: int, *, to_real: bool = False) -> Callable:
    def translate(body: Body, a: Any, b: Any, *, alpha: Any = 1, rounding_mode: Any = None) -> Expr:
        if alpha != 1:
            raise UntranslatableError(f"alpha {alpha} has no translation")
        tensors = torch.is_tensor(body.example(a)) or torch.is_tensor(body.example(b))
        operator, divides = symbol, to_real
        if rounding_mode == "floor":
            operator, divides = "//", False
        elif rounding_mode is not None:
            raise UntranslatableError(f"rounding_mode {rounding_mode!r} has no translation")
        (left, right), layout = aligned(body, a, b)
        if tensors and rank >= SUM:
            if divides or is_float(body, a) or is_float(body, b):
                whole = not (is_float(body, a) and is_float(body, b))
                if whole and not any(
                    torch.is_tensor(body.example(x)) and is_float(body, x) for x in (a, b)
                ):
                    left, right = real(body, a, left), real(body, b, right)
            left, right = _unpromoted(body, (a, left), (b, right))
        least = (rank + 1, rank) if operator == "**" else (rank, rank + 1)
        text = f"{left.within(least[0])} {operator} {right.within(least[1])}"
        if operator == "**" and left.rank == ATOM and right.text.isdecimal():
            text = f"{left.text}**{right.text}"
        return Expr(text, layout, rank)

    return translate


def _unpromoted(body: Body, *pairs: tuple[Any, Expr]) -> list[Expr]:
    """Operands of which a tensor of no axes does not change the dtype of the others."""
    tensors = [(arg, body.example(arg)) for arg, _ in pairs if torch.is_tensor(body.example(arg))]
    if len(tensors) < 2 or tensors[0][1].dtype == tensors[1][1].dtype:
        return [expr for _, expr in pairs]
    shaped = [(arg, example) for arg, example in tensors if example.dim()]
    if len(shaped) != 1:
        return [expr for _, expr in pairs]
    (strong, example), result = shaped[0], []
    for arg, expr in pairs:
        if arg is not strong and example.is_floating_point() >= is_float(body, arg):
            name = body.variable(strong, body.layout_of(strong))
            expr = Expr(f"{expr.within(ATOM)}.astype({name}.dtype)", expr.layout)
        result.append(expr)
    return result


for _names, _symbol, _rank in (
    (("add",), "+", SUM),
    (("sub", "subtract"), "-", SUM),
    (("mul", "multiply"), "*", TERM),
    (("floordiv", "floor_divide"), "//", TERM),
    (("mod", "remainder"), "%", TERM),
    (("pow",), "**", POWER),
    (("eq",), "==", COMPARE),
    (("ne", "not_equal"), "!=", COMPARE),
    (("lt", "less"), "<", COMPARE),
    (("le", "less_equal"), "<=", COMPARE),
    (("gt", "greater"), ">", COMPARE),
    (("ge", "greater_equal"), ">=", COMPARE),
    (("and", "bitwise_and", "logical_and"), "&", AND),
    (("or", "bitwise_or", "logical_or"), "|", OR),
    (("xor", "bitwise_xor", "logical_xor"), "^", XOR),
):
    translates(*_names)(_binary(_symbol, _rank))
translates("truediv", "div", "divide", "true_divide")(_binary("/", TERM, to_real=True))


@translates("rsub")
def _rsub(body: Body, a: Any, b: Any) -> Expr:
    return OPERATIONS["sub"](body, b, a)


@translates("neg", "negative")
def _neg(body: Body, x: Any) -> Expr:
    expr = body.expr(x)
    return Expr(f"-{expr.within(UNARY)}", expr.layout, UNARY)


@translates("invert", "bitwise_not", "logical_not", "inv")
def _invert(body: Body, x: Any) -> Expr:
    expr = body.expr(x)
    return Expr(f"~{expr.within(UNARY)}", expr.layout, UNARY)


def _unary(function: str, *, of_real: bool = True) -> Callable:
    def translate(body: Body, x: Any) -> Expr:
        expr = real(body, x, body.expr(x)) if of_real else body.expr(x)
        return Expr(f"{function}({expr.text})", expr.layout)

    return translate


for _name in ("exp", "log", "sqrt", "sin", "cos", "tan", "tanh", "sinh", "cosh", "log1p", "expm1"):
    translates(_name)(_unary(f"jnp.{_name}"))
for _name in ("log2", "log10", "exp2", "reciprocal"):
    translates(_name)(_unary(f"jnp.{_name}"))
for _name in ("isnan", "isinf", "isfinite", "floor", "ceil", "round", "trunc", "sign", "square"):
    translates(_name)(_unary(f"jnp.{_name}", of_real=False))
for _names, _function in (
    (("rsqrt",), "jax.lax.rsqrt"),
    (("sigmoid", "expit"), "jax.nn.sigmoid"),
    (("erf",), "jax.lax.erf"),
    (("atan", "arctan"), "jnp.arctan"),
    (("asin", "arcsin"), "jnp.arcsin"),
    (("acos", "arccos"), "jnp.arccos"),
):
    translates(*_names)(_unary(_function))
translates("abs", "absolute")(_unary("jnp.abs", of_real=False))


def _pairwise(function: str) -> Callable:
    def translate(body: Body, a: Any, b: Any) -> Expr:
        (left, right), layout = aligned(body, a, b)
        return Expr(f"{function}({left.text}, {right.text})", layout)

    return translate


for _names, _function in (
    (("maximum",), "jnp.maximum"),
    (("minimum",), "jnp.minimum"),
    (("atan2", "arctan2"), "jnp.arctan2"),
    (("logaddexp",), "jnp.logaddexp"),
):
    translates(*_names)(_pairwise(_function))


@translates("clamp", "clip")
def _clamp(body: Body, x: Any, min: Any = None, max: Any = None) -> Expr:  # noqa: A002
    layout = body.layout_of(x)
    if any(body.ndim(bound) not in (0, body.ndim(x)) for bound in (min, max)):
        layout = None
    name = text = body.variable(x, layout)
    for bound, symbol in ((max, ">"), (min, "<")):  # at a bound the gradient is x's
        if bound is not None:
            limit = body.held(bound, layout if body.ndim(bound) else None)
            text = f"jnp.where({name} {symbol} {limit.within(SUM)}, {limit.text}, {text})"
    return Expr(text, layout)


@translates("clamp_min")
def _clamp_min(body: Body, x: Any, min: Any) -> Expr:  # noqa: A002
    return _clamp(body, x, min)


@translates("clamp_max")
def _clamp_max(body: Body, x: Any, max: Any) -> Expr:  # noqa: A002
    return _clamp(body, x, None, max)


@translates("where")
def _where(body: Body, condition: Any, a: Any, b: Any) -> Expr:
    exprs, layout = aligned(body, condition, a, b)
    return Expr(f"jnp.where({', '.join(expr.text for expr in exprs)})", layout)


@translates("masked_fill")
def _masked_fill(body: Body, x: Any, mask: Any, value: Any) -> Expr:
    (x_expr, mask_expr), layout = aligned(body, x, mask)
    filling = body.expr(value).text
    if torch.is_tensor(body.example(value)):
        filling = f"{filling}.astype({body.variable(x, body.layout_of(x))}.dtype)"
    return Expr(f"jnp.where({mask_expr.text}, {filling}, {x_expr.text})", layout)


# Reductions


def _reduction(method: str, *, of_real: bool = False) -> Callable:
    def translate(
        body: Body, x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
    ) -> Expr:
        expr = body.expr(x)
        if dtype is not None:
            expr = Expr(f"{expr.within(ATOM)}.astype({body.expr(dtype).text})", expr.layout)
        elif of_real:
            expr = real(body, x, expr)
        return reduced(body, x, dim, keepdim, lambda axes: f"{expr.within(ATOM)}.{method}({axes})")

    return translate


def reduced(
    body: Body, x: Any, dim: Any, keepdim: bool, text: Callable[[str], str], more: str = ""
) -> Expr:
    """A reduction along axes, given how it is written with its arguments."""
    layout, ndim = body.layout_of(x), body.ndim(x)
    dims = dims_of(body, x, dim)
    options = []
    if not (dim is None or dim == () or dim == []):
        axes = tuple(body.axis(x, each) for each in dims)
        options.append(f"axis={axes[0] if len(axes) == 1 else literal(axes).text}")
    if keepdim:
        options.append("keepdims=True")
    if more:
        options.append(more)
    after = layout if keepdim else layouts.reduced(dims, ndim, layout)
    return Expr(text(", ".join(options)), after)


for _name in ("sum", "prod", "any", "all"):
    translates(_name)(_reduction(_name))
for _name, _method in (("amax", "max"), ("amin", "min")):
    translates(_name)(_reduction(_method))
translates("mean")(_reduction("mean", of_real=True))


def _spread(function: str) -> Callable:
    def translate(
        body: Body,
        x: Any,
        dim: Any = None,
        unbiased: Any = True,
        keepdim: bool = False,
        *,
        correction: Any = None,
    ) -> Expr:
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        less = correction if correction is not None else int(bool(unbiased))
        expr = body.expr(x)
        more = f"ddof={less}" if less else ""

        def text(axes: str) -> str:
            return f"{expr.within(ATOM)}.{function}({axes})"

        return reduced(body, x, dim, keepdim, text, more)

    return translate


translates("var")(_spread("var"))
translates("std")(_spread("std"))


def _extreme(function: str, pairwise: str) -> Callable:
    def translate(body: Body, x: Any, dim: Any = None, keepdim: bool = False) -> Expr:
        if torch.is_tensor(body.example(dim)):
            return OPERATIONS[pairwise](body, x, dim)
        if dim is None:
            return Expr(f"{body.expr(x).within(ATOM)}.{function}()")
        # The gradient goes to the one entry that is found, as in torch.
        name, layout = body.variable(x, body.layout_of(x)), body.layout_of(x)
        axis = body.axis(x, dim)
        at = body.temporary("index", f"jnp.arg{function}({name}, axis={axis}, keepdims=True)")
        values = f"jnp.take_along_axis({name}, {at}, axis={axis})"
        if keepdim:
            return Expr(f"{values}, {at}", layout)
        after = layouts.reduced([dim], body.ndim(x), layout)
        return Expr(f"{values}.squeeze({axis}), {at}.squeeze({axis})", after)

    return translate


translates("max")(_extreme("max", "maximum"))
translates("min")(_extreme("min", "minimum"))


def _position(function: str) -> Callable:
    def translate(body: Body, x: Any, dim: Any = None, keepdim: bool = False) -> Expr:
        if dim is None:
            return Expr(f"jnp.{function}({body.torch(x)})")
        expr = body.expr(x)
        return reduced(
            body, x, dim, keepdim, lambda axes: f"{expr.within(ATOM)}.{function}({axes})"
        )

    return translate


translates("argmax")(_position("argmax"))
translates("argmin")(_position("argmin"))


@translates("logsumexp")
def _logsumexp(body: Body, x: Any, dim: Any, keepdim: bool = False) -> Expr:
    expr = body.expr(x)
    return reduced(
        body, x, dim, keepdim, lambda axes: f"jax.nn.logsumexp({expr.text}, {axes})"
    )


@translates("norm", "vector_norm", "linalg_norm", "linalg_vector_norm")
def _norm(body: Body, x: Any, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Expr:
    if p not in (2, 2.0, "fro", None):
        raise UntranslatableError(f"a norm of order {p} has no translation")
    text = body.expr(x).text
    return reduced(
        body, x, dim, keepdim, lambda axes: f"jnp.sqrt(jnp.square({text}).sum({axes}))"
    )


def _running(function: str) -> Callable:
    def translate(body: Body, x: Any, dim: int) -> Expr:
        expr = body.expr(x)
        return Expr(f"jnp.{function}({expr.text}, axis={body.axis(x, dim)})", expr.layout)

    return translate


translates("cumsum")(_running("cumsum"))
translates("cumprod")(_running("cumprod"))


@translates("topk")
def _topk(body: Body, x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True):  # noqa: A002
    if not largest or dim % body.ndim(x) != body.ndim(x) - 1:
        raise UntranslatableError("topk is translated for the largest along the last axis only")
    return Expr(f"jax.lax.top_k({body.torch(x, 0)}, {body.expr(k).text})")


# Products


@translates("matmul", "bmm", "mm", "mv", "dot", "inner")
def _matmul(body: Body, a: Any, b: Any) -> Expr:
    return Expr(f"{body.torch(a, TERM)} @ {body.torch(b, TERM + 1)}", rank=TERM)


@translates("linear")
def _linear(body: Body, x: Any, weight: Any, bias: Any = None) -> Expr:
    matrix = body.torch(weight)
    matrix = matrix.removesuffix(".T") if matrix.endswith(".T") else f"{matrix}.T"
    product = f"{body.torch(x, TERM)} @ {matrix}"
    if bias is None:
        return Expr(product, rank=TERM)
    return Expr(f"{product} + {body.torch(bias, SUM + 1)}", rank=SUM)


@translates("addmm", "baddbmm")
def _addmm(body: Body, bias: Any, a: Any, b: Any) -> Expr:
    product = f"{body.torch(a, TERM)} @ {body.torch(b, TERM + 1)}"
    return Expr(f"{body.torch(bias, SUM)} + {product}", rank=SUM)


@translates("einsum")
def _einsum(body: Body, first: Any, *operands: Any) -> Expr:
    if not isinstance(first, str):  # einops has the pattern last
        arrays = ", ".join(body.torch(x, 0) for x in (first, *operands[:-1]))
        return Expr(f"einsum({arrays}, {literal(operands[-1]).text})")
    given = operands[0] if isinstance(operands[0], tuple | list) else operands
    arrays = ", ".join(body.torch(x, 0) for x in given)
    return Expr(f"jnp.einsum({literal(first).text}, {arrays})")


@translates("outer", "ger")
def _outer(body: Body, a: Any, b: Any) -> Expr:
    return Expr(f"jnp.outer({body.torch(a, 0)}, {body.torch(b, 0)})")


# Dtypes and devices


@translates("to", "type")
def _to(body: Body, x: Any, *args: Any, dtype: Any = None, **other: Any) -> Expr:
    expr = body.expr(x)
    for arg in args:
        example = body.example(arg)
        if torch.is_tensor(example):
            dtype = arg if example.dtype != body.example(x).dtype else None
            if dtype is not None:
                return Expr(f"{expr.within(ATOM)}.astype({body.variable(arg)}.dtype)", expr.layout)
        elif isinstance(example, torch.dtype):
            dtype = arg
    if dtype is None:
        return expr
    return Expr(f"{expr.within(ATOM)}.astype({body.expr(dtype).text})", expr.layout)


@translates("type_as")
def _type_as(body: Body, x: Any, other: Any) -> Expr:
    expr = body.expr(x)
    name = body.variable(other, body.layout_of(other))
    return Expr(f"{expr.within(ATOM)}.astype({name}.dtype)", expr.layout)


for _name, _dtype in (
    ("float", torch.float32),
    ("double", torch.float64),
    ("half", torch.float16),
    ("bfloat16", torch.bfloat16),
    ("long", torch.int64),
    ("int", torch.int32),
    ("bool", torch.bool),
):

    def _cast(body: Body, x: Any, _dtype: torch.dtype = _dtype) -> Expr:
        expr = body.expr(x)
        return Expr(f"{expr.within(ATOM)}.astype({DTYPES[_dtype]})", expr.layout)

    translates(_name)(_cast)


@translates("contiguous", "clone", "cpu", "cuda", "requires_grad", "copy", "alias", "positive")
def _itself(body: Body, x: Any, *other: Any, **more: Any) -> Expr:
    return body.expr(x)


@translates("detach")
def _detach(body: Body, x: Any) -> Expr:
    expr = body.expr(x)
    return Expr(f"jax.lax.stop_gradient({expr.text})", expr.layout)


@translates("getattr")
def _getattr(body: Body, x: Any, name: str) -> Expr:
    if name in ("T", "mT", "H", "mH"):
        return Expr(f"{body.torch(x)}.{name[-1] if name in ('T', 'H') else 'mT'}")
    expr = body.expr(x)
    return Expr(f"{expr.within(ATOM)}.{name}")


@translates("finfo")
def _finfo(body: Body, dtype: Any) -> Expr:
    return Expr(f"jnp.finfo({body.expr(dtype).text})")


def shape_text(body: Body, sizes: Sequence[Any]) -> str:
    """Sizes as a shape, given one by one or as one sequence."""
    given = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
    return body.expr(tuple(given)).text
