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

FROBENIUS = "fro"  # codespell:ignore fro


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
        if not tensors and symbol == "*" and 1 in (a, b):  # of sizes
            return body.expr(b if a == 1 else a)
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
    strong, example = shaped[0]
    ((weak, weak_expr),) = [pair for pair in pairs if pair[0] is not strong]
    if (
        not torch.is_tensor(body.example(weak))
        or is_float(body, weak) > example.is_floating_point()
    ):
        return [expr for _, expr in pairs]
    layout = next(expr.layout for arg, expr in pairs if arg is strong)
    name = body.variable(strong, layout)
    cast = Expr(f"{weak_expr.within(ATOM)}.astype({name}.dtype)", weak_expr.layout)
    return [Expr(name, layout) if arg is strong else cast for arg, _ in pairs]


def _rsub(body: Body, a: Any, b: Any) -> Expr:
    return _binary("-", SUM)(body, b, a)


def _neg(body: Body, x: Any) -> Expr:
    expr = body.expr(x)
    return Expr(f"-{expr.within(UNARY)}", expr.layout, UNARY)


def _invert(body: Body, x: Any) -> Expr:
    expr = body.expr(x)
    return Expr(f"~{expr.within(UNARY)}", expr.layout, UNARY)


def _unary(function: str, *, of_real: bool = True) -> Callable:
    def translate(body: Body, x: Any) -> Expr:
        expr = real(body, x, body.expr(x)) if of_real else body.expr(x)
        return Expr(f"{function}({expr.text})", expr.layout)

    return translate


def _pairwise(function: str) -> Callable:
    def translate(body: Body, a: Any, b: Any) -> Expr:
        (left, right), layout = aligned(body, a, b)
        return Expr(f"{function}({left.text}, {right.text})", layout)

    return translate


def _clamp(body: Body, x: Any, min: Any = None, max: Any = None) -> Expr:
    layout = body.layout_of(x)
    if any(body.ndim(bound) not in (0, body.ndim(x)) for bound in (min, max)):
        layout = None
    name = text = body.variable(x, layout)
    for bound, symbol in ((max, ">"), (min, "<")):  # at a bound the gradient is x's
        if bound is not None:
            limit = body.held(bound, layout if body.ndim(bound) else None)
            text = f"jnp.where({name} {symbol} {limit.within(SUM)}, {limit.text}, {text})"
    return Expr(text, layout)


def _clamp_min(body: Body, x: Any, min: Any) -> Expr:
    return _clamp(body, x, min)


def _clamp_max(body: Body, x: Any, max: Any) -> Expr:
    return _clamp(body, x, None, max)


def _where(body: Body, condition: Any, a: Any, b: Any) -> Expr:
    exprs, layout = aligned(body, condition, a, b)
    return Expr(f"jnp.where({', '.join(expr.text for expr in exprs)})", layout)


def _masked_fill(body: Body, x: Any, mask: Any, value: Any) -> Expr:
    filling = body.expr(value).text
    if torch.is_tensor(body.example(value)):
        filling = f"{filling}.astype({body.variable(x, body.layout_of(x))}.dtype)"
    (x_expr, mask_expr), layout = aligned(body, x, mask)
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


def _extreme(function: str, pairwise: str) -> Callable:
    def translate(body: Body, x: Any, dim: Any = None, keepdim: bool = False) -> Expr:
        if torch.is_tensor(body.example(dim)):
            return _pairwise(f"jnp.{pairwise}")(body, x, dim)
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


def _position(function: str) -> Callable:
    def translate(body: Body, x: Any, dim: Any = None, keepdim: bool = False) -> Expr:
        if dim is None:
            return Expr(f"jnp.{function}({body.torch(x)})")
        expr = body.expr(x)
        return reduced(
            body, x, dim, keepdim, lambda axes: f"{expr.within(ATOM)}.{function}({axes})"
        )

    return translate


def _logsumexp(body: Body, x: Any, dim: Any, keepdim: bool = False) -> Expr:
    expr = body.expr(x)
    return reduced(body, x, dim, keepdim, lambda axes: f"jax.nn.logsumexp({expr.text}, {axes})")


def _norm(
    body: Body, x: Any, p: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Expr:
    if p not in (2, 2.0, FROBENIUS, None) or dtype is not None:
        raise UntranslatableError(f"a norm of order {p} in {dtype} has no translation")
    return length(body, x, dim, keepdim)


def length(body: Body, x: Any, dim: Any, keepdim: bool) -> Expr:
    """The Euclidean norm, whose gradient is 0 where it is 0, as torch's."""
    expr = body.expr(x)
    squares = reduced(body, x, dim, keepdim, lambda axes: f"jnp.square({expr.text}).sum({axes})")
    name = body.temporary("squares", squares.text)
    root = f"jnp.sqrt(jnp.where({name} > 0, {name}, 1))"
    return Expr(f"jnp.where({name} > 0, {root}, 0)", squares.layout)


def _running(function: str) -> Callable:
    def translate(body: Body, x: Any, dim: int) -> Expr:
        expr = body.expr(x)
        return Expr(f"jnp.{function}({expr.text}, axis={body.axis(x, dim)})", expr.layout)

    return translate


def _topk(body: Body, x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True):
    if not largest or dim % body.ndim(x) != body.ndim(x) - 1:
        raise UntranslatableError("topk is translated for the largest along the last axis only")
    return Expr(f"jax.lax.top_k({body.torch(x, 0)}, {body.expr(k).text})")


# Products


def _matmul(body: Body, a: Any, b: Any) -> Expr:
    return Expr(f"{body.torch(a, TERM)} @ {body.torch(b, TERM + 1)}", rank=TERM)


def _linear(body: Body, x: Any, weight: Any, bias: Any = None) -> Expr:
    matrix = body.torch(weight)
    matrix = matrix.removesuffix(".T") if matrix.endswith(".T") else f"{matrix}.T"
    product = f"{body.torch(x, TERM)} @ {matrix}"
    if bias is None:
        return Expr(product, rank=TERM)
    return Expr(f"{product} + {body.torch(bias, SUM + 1)}", rank=SUM)


def _addmm(body: Body, bias: Any, a: Any, b: Any) -> Expr:
    product = f"{body.torch(a, TERM)} @ {body.torch(b, TERM + 1)}"
    return Expr(f"{body.torch(bias, SUM)} + {product}", rank=SUM)


def _einsum(body: Body, first: Any, *operands: Any) -> Expr:
    if not isinstance(first, str):  # einops has the pattern last
        arrays = ", ".join(body.torch(x, 0) for x in (first, *operands[:-1]))
        return Expr(f"einsum({arrays}, {literal(operands[-1]).text})")
    given = operands[0] if isinstance(operands[0], tuple | list) else operands
    arrays = ", ".join(body.torch(x, 0) for x in given)
    return Expr(f"jnp.einsum({literal(first).text}, {arrays})")


def _outer(body: Body, a: Any, b: Any) -> Expr:
    return Expr(f"jnp.outer({body.torch(a, 0)}, {body.torch(b, 0)})")


# Dtypes and devices


def _to(body: Body, x: Any, *args: Any, dtype: Any = None, **other: Any) -> Expr:
    expr = body.expr(x)
    for arg in args:
        example = body.example(arg)
        if torch.is_tensor(example):
            return _type_as(body, x, arg)
        if isinstance(example, torch.dtype):
            dtype = arg
    if dtype is None:
        return expr
    return Expr(f"{expr.within(ATOM)}.astype({body.expr(dtype).text})", expr.layout)


def _type_as(body: Body, x: Any, other: Any) -> Expr:
    expr = body.expr(x)
    name = body.variable(other, body.layout_of(other))
    return Expr(f"{expr.within(ATOM)}.astype({name}.dtype)", expr.layout)


def _cast(dtype: torch.dtype) -> Callable:
    def translate(body: Body, x: Any) -> Expr:
        expr = body.expr(x)
        return Expr(f"{expr.within(ATOM)}.astype({DTYPES[dtype]})", expr.layout)

    return translate


def _itself(body: Body, x: Any, *other: Any, **more: Any) -> Expr:
    return body.expr(x)


def _copied(body: Body, x: Any, source: Any, *other: Any) -> Expr:
    name, layout = body.variable(x, body.layout_of(x)), body.layout_of(x)
    filled = body.held(source, layout if body.ndim(source) == body.ndim(x) else None)
    if body.ndim(source) not in (0, body.ndim(x)) and layout is not None:
        raise UntranslatableError("a copy that is broadcast into an image has no translation")
    return Expr(f"jnp.broadcast_to({filled.text}, {name}.shape).astype({name}.dtype)", layout)


def _detach(body: Body, x: Any) -> Expr:
    expr = body.expr(x)
    return Expr(f"jax.lax.stop_gradient({expr.text})", expr.layout)


def _getattr(body: Body, x: Any, name: str) -> Expr:
    if name in ("T", "mT", "H", "mH"):
        return Expr(f"{body.torch(x)}.{name[-1] if name in ('T', 'H') else 'mT'}")
    expr = body.expr(x)
    return Expr(f"{expr.within(ATOM)}.{name}")


def _finfo(body: Body, dtype: Any) -> Expr:
    return Expr(f"jnp.finfo({body.expr(dtype).text})")


def shape_text(body: Body, sizes: Sequence[Any]) -> str:
    """Sizes as a shape, given one by one or as one sequence."""
    given = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
    return body.expr(tuple(given)).text


OPERATIONS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(["add"], _binary("+", SUM)),
    **dict.fromkeys(["sub", "subtract"], _binary("-", SUM)),
    **dict.fromkeys(["mul", "multiply"], _binary("*", TERM)),
    **dict.fromkeys(["truediv", "div", "divide", "true_divide"], _binary("/", TERM, to_real=True)),
    **dict.fromkeys(["floordiv", "floor_divide"], _binary("//", TERM)),
    **dict.fromkeys(["mod", "remainder"], _binary("%", TERM)),
    "pow": _binary("**", POWER),
    "eq": _binary("==", COMPARE),
    **dict.fromkeys(["ne", "not_equal"], _binary("!=", COMPARE)),
    **dict.fromkeys(["lt", "less"], _binary("<", COMPARE)),
    **dict.fromkeys(["le", "less_equal"], _binary("<=", COMPARE)),
    **dict.fromkeys(["gt", "greater"], _binary(">", COMPARE)),
    **dict.fromkeys(["ge", "greater_equal"], _binary(">=", COMPARE)),
    **dict.fromkeys(["and", "bitwise_and"], _binary("&", AND)),
    **dict.fromkeys(["or", "bitwise_or"], _binary("|", OR)),
    **dict.fromkeys(["xor", "bitwise_xor"], _binary("^", XOR)),
    **{f"logical_{name}": _pairwise(f"jnp.logical_{name}") for name in ("and", "or", "xor")},
    "logical_not": _unary("jnp.logical_not", of_real=False),
    **dict.fromkeys(["invert", "bitwise_not"], _invert),
    **dict.fromkeys(["neg", "negative"], _neg),
    "rsub": _rsub,
    **{
        name: _unary(f"jnp.{name}")
        for name in (
            *("exp", "log", "sqrt", "sin", "cos", "tan", "tanh", "sinh", "cosh"),
            *("log1p", "expm1", "log2", "log10", "exp2", "reciprocal"),
        )
    },
    **{
        name: _unary(f"jnp.{name}", of_real=False)
        for name in (
            *("isnan", "isinf", "isfinite", "floor", "ceil", "round", "trunc", "sign"),
            *("square", "abs"),
        )
    },
    "absolute": _unary("jnp.abs", of_real=False),
    "rsqrt": _unary("jax.lax.rsqrt"),
    "sigmoid": _unary("jax.nn.sigmoid"),
    "erf": _unary("jax.lax.erf"),
    **dict.fromkeys(["atan", "arctan"], _unary("jnp.arctan")),
    **dict.fromkeys(["asin", "arcsin"], _unary("jnp.arcsin")),
    **dict.fromkeys(["acos", "arccos"], _unary("jnp.arccos")),
    "maximum": _pairwise("jnp.maximum"),
    "minimum": _pairwise("jnp.minimum"),
    **dict.fromkeys(["atan2", "arctan2"], _pairwise("jnp.arctan2")),
    "logaddexp": _pairwise("jnp.logaddexp"),
    **dict.fromkeys(["clamp", "clip"], _clamp),
    "clamp_min": _clamp_min,
    "clamp_max": _clamp_max,
    "where": _where,
    "masked_fill": _masked_fill,
    **{name: _reduction(name) for name in ("sum", "prod", "any", "all")},
    "amax": _reduction("max"),
    "amin": _reduction("min"),
    "mean": _reduction("mean", of_real=True),
    "var": _spread("var"),
    "std": _spread("std"),
    "max": _extreme("max", "maximum"),
    "min": _extreme("min", "minimum"),
    "argmax": _position("argmax"),
    "argmin": _position("argmin"),
    "logsumexp": _logsumexp,
    **dict.fromkeys(["norm", "linalg_norm", "linalg_vector_norm"], _norm),
    "cumsum": _running("cumsum"),
    "cumprod": _running("cumprod"),
    "topk": _topk,
    **dict.fromkeys(["matmul", "bmm", "mm", "mv", "dot"], _matmul),
    "linear": _linear,
    **dict.fromkeys(["addmm", "baddbmm"], _addmm),
    "einsum": _einsum,
    **dict.fromkeys(["outer", "ger"], _outer),
    "to": _to,
    "type_as": _type_as,
    "float": _cast(torch.float32),
    "double": _cast(torch.float64),
    "half": _cast(torch.float16),
    "bfloat16": _cast(torch.bfloat16),
    "long": _cast(torch.int64),
    "int": _cast(torch.int32),
    "bool": _cast(torch.bool),
    **dict.fromkeys(
        ["contiguous", "clone", "cpu", "cuda", "requires_grad", "positive", "pos"], _itself
    ),
    "copy": _copied,
    "detach": _detach,
    "getattr": _getattr,
    "finfo": _finfo,
}
