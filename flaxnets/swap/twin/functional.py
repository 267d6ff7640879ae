"""torch.nn.functional as JAX text, and as layers of `flaxnets.layers` that hold nothing."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from flaxnets.swap.twin import layouts
from flaxnets.swap.twin.body import Body, UntranslatableError
from flaxnets.swap.twin.expressions import ATOM, SUM, TERM, Expr, literal
from flaxnets.swap.twin.layers import IMPLICIT_DIM, Raw, layer, text, wanted
from flaxnets.swap.twin.operations import length


def _applied(body: Body, x: Any, name: str, draws: bool = False, **args: Any) -> Expr:
    """A layer that is made and called at once."""
    layout = wanted(name, body.ndim(x), body.layout_of(x))
    expr = body.held(x, layout)
    call = text(layer(name, **{key: _read(body, value) for key, value in args.items()}), {})
    if draws:
        body.draw()
    return Expr(f"{call}({expr.text}{', rngs=rngs' if draws else ''})", layout)


def _read(body: Body, value: Any) -> Any:
    if isinstance(value, torch.fx.Node):
        return Raw(body.expr(value).text)
    if isinstance(value, tuple | list) and any(isinstance(v, torch.fx.Node) for v in value):
        return Raw(body.expr(tuple(value)).text)
    return value


def _layer(name: str, *parameters: str, **fixed: Any) -> Callable:
    """A function whose arguments are those of a layer, in the order given."""
    signature = inspect.Signature(
        [inspect.Parameter(key, inspect.Parameter.POSITIONAL_OR_KEYWORD) for key in parameters]
    )

    def translate(body: Body, x: Any, *args: Any, **kwargs: Any) -> Expr:
        given = signature.bind_partial(*args, **kwargs).arguments
        given.pop("inplace", None)
        if given.pop("return_indices", False):
            raise UntranslatableError("return_indices has no translation")
        if given.get("stride") in (None, (), []):
            given.pop("stride", None)
        return _applied(body, x, name, **given, **fixed)

    return translate


def _activation(function: str) -> Callable:
    def translate(body: Body, x: Any, inplace: bool = False) -> Expr:
        expr = body.expr(x)
        return Expr(f"{function}({expr.text})", expr.layout)

    return translate


def _pools(dims: str) -> dict[str, Callable]:
    window = ("kernel_size", "stride", "padding")
    more = () if dims == "1d" else ("divisor_override",)
    largest = (*window, "dilation", "ceil_mode", "return_indices")
    average = (*window, "ceil_mode", "count_include_pad", *more)
    adaptive = _layer(f"AdaptiveMaxPool{dims}", "output_size", "return_indices")
    return {
        f"max_pool{dims}": _layer(f"MaxPool{dims}", *largest),
        f"avg_pool{dims}": _layer(f"AvgPool{dims}", *average),
        f"lp_pool{dims}": _layer(f"LPPool{dims}", "norm_type", *window[:2], "ceil_mode"),
        f"adaptive_avg_pool{dims}": _layer(f"AdaptiveAvgPool{dims}", "output_size"),
        f"adaptive_max_pool{dims}": adaptive,
    }


def _gelu(body: Body, x: Any, approximate: str = "none") -> Expr:
    expr = body.expr(x)
    return Expr(f"jax.nn.gelu({expr.text}, approximate={approximate == 'tanh'})", expr.layout)


def _softmax(function: str, sign: str = "") -> Callable:
    def translate(
        body: Body, x: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None
    ) -> Expr:
        expr = body.expr(x)
        dim = IMPLICIT_DIM.get(body.ndim(x), 1) if dim is None else dim
        operand = (
            expr.text if dtype is None else (f"{expr.within(ATOM)}.astype({body.expr(dtype).text})")
        )
        operand = f"-{expr.within(ATOM)}" if sign else operand
        axis = body.axis(x, dim)
        along = "" if axis == -1 else f", axis={axis}"
        return Expr(f"{function}({operand}{along})", expr.layout)

    return translate


def _glu(body: Body, x: Any, dim: int = -1) -> Expr:
    expr = body.expr(x)
    return Expr(f"{text(layer('GLU', dim=body.axis(x, dim)), {})}({expr.text})", expr.layout)


def _prelu(body: Body, x: Any, weight: Any) -> Expr:
    name, layout = body.variable(x, 1), layouts.settled(1, body.ndim(x))
    slopes = body.torch(weight)
    return Expr(f"jnp.where({name} > 0, {name}, {slopes} * {name})", layout)


# Randomness


def _dropout(name: str) -> Callable:
    def translate(
        body: Body, x: Any, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Expr:
        return _applied(body, x, name, draws=True, p=float(p) if training else 0.0)

    return translate


# Products and windows


def _convolution(dims: int) -> Callable:
    letters = "DHW"[3 - dims :]

    def translate(
        body: Body,
        x: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Expr:
        if body.ndim(x) != dims + 2:
            raise UntranslatableError(f"conv{dims}d without a batch has no translation")
        expr = body.held(x, 1)
        options = f"{_several(stride, dims)}, {_pads(padding, dims)}"
        if _several(dilation, dims) != _several(1, dims):
            options += f", rhs_dilation={_several(dilation, dims)}"
        numbers = (f"N{letters}C", f"OI{letters}", f"N{letters}C")
        options += f", dimension_numbers={literal(numbers).text}"
        if groups != 1:
            options += f", feature_group_count={groups}"
        kernel = body.torch(weight, 0)
        called = f"jax.lax.conv_general_dilated({expr.text}, {kernel}, {options})"
        if bias is None:
            return Expr(called, 1)
        product = body.temporary("product", called)
        return Expr(f"{product} + {body.torch(bias, TERM)}", 1, SUM)

    return translate


def _several(value: Any, count: int) -> str:
    given = tuple(value) if isinstance(value, tuple | list) else (value,)
    return literal(given * count if len(given) == 1 else given).text


def _pads(padding: Any, count: int) -> str:
    if isinstance(padding, str):
        return literal(padding.upper()).text
    given = tuple(padding) if isinstance(padding, tuple | list) else (padding,)
    given = given * count if len(given) == 1 else given
    return literal([(each, each) for each in given]).text


def _interpolate(
    body: Body,
    x: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> Expr:
    if antialias:
        raise UntranslatableError("antialias has no translation")
    options = {"size": size, "scale_factor": scale_factor, "mode": mode}
    options |= {"align_corners": align_corners, "recompute_scale_factor": recompute_scale_factor}
    return _applied(body, x, "Upsample", **{k: v for k, v in options.items() if v is not None})


PADDINGS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _pad(body: Body, x: Any, pad: Any, mode: str = "constant", value: Any = None) -> Expr:
    layout, ndim = body.layout_of(x), body.ndim(x)
    zero: tuple[Any, Any] = (0, 0)
    widths = [zero] * ndim
    for index in range(len(pad) // 2):
        widths[body.axis(x, ndim - 1 - index)] = (pad[2 * index], pad[2 * index + 1])
    shown = ", ".join(body.expr(width).text for width in widths)
    if mode != "constant":
        return Expr(f'jnp.pad({body.expr(x).text}, ({shown}), mode="{PADDINGS[mode]}")', layout)
    if any(body.example(width) < 0 for pair in widths for width in pair):
        cropped = ", ".join(f"({body.expr(a).text}, {body.expr(b).text}, 0)" for a, b in widths)
        name = body.variable(x, layout)
        filling = body.expr(value or 0.0).text
        return Expr(f"jax.lax.pad({name}, jnp.array({filling}, {name}.dtype), ({cropped}))", layout)
    filling = f", constant_values={body.expr(value).text}" if value else ""
    return Expr(f"jnp.pad({body.expr(x).text}, ({shown}){filling})", layout)


# Normalisation


def _scaled(body: Body, normal: str, layout: Any, weight: Any, bias: Any) -> Expr:
    """What a layer without weights gives, with weights."""
    result, rank = normal, ATOM
    if weight is not None:
        result, rank = f"{result} * {body.torch(weight, TERM + 1)}", TERM
    if bias is not None:
        result, rank = f"{result} + {body.torch(bias, SUM + 1)}", SUM
    return Expr(result, layout, rank)


def _layer_norm(
    body: Body,
    x: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Expr:
    shape = _read(body, tuple(normalized_shape))
    call = text(layer("LayerNorm", normalized_shape=shape, eps=eps, elementwise_affine=False), {})
    return _scaled(body, f"{call}({body.torch(x, 0)})", None, weight, bias)


def _group_norm(
    body: Body, x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Expr:
    channels = body.example(x).shape[1]
    call = text(
        layer("GroupNorm", num_groups=num_groups, num_channels=channels, eps=eps, affine=False), {}
    )
    return _scaled(body, f"{call}({body.held(x, 1).text})", 1, weight, bias)


def _normalize(body: Body, x: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Expr:
    if p != 2:
        raise UntranslatableError(f"normalize of order {p} has no translation")
    name, layout = body.variable(x, body.layout_of(x)), body.layout_of(x)
    return Expr(f"{name} / jnp.maximum({length(body, x, dim, True).text}, {eps!r})", layout, TERM)


def _cosine(body: Body, a: Any, b: Any, dim: int = 1, eps: float = 1e-8) -> Expr:
    one, other = body.variable(a), body.variable(b)
    lengths = [f"jnp.maximum({length(body, x, dim, False).text}, {eps!r})" for x in (a, b)]
    return Expr(f"({one} * {other}).sum(axis={dim}) / ({' * '.join(lengths)})", rank=TERM)


# Look-ups and attention


def _embedding(
    body: Body,
    indices: Any,
    weight: Any,
    padding_idx: Any = None,
    max_norm: Any = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Expr:
    if max_norm is not None or scale_grad_by_freq:
        raise UntranslatableError("max_norm and scale_grad_by_freq have no translation")
    name = body.variable(indices)
    rows = f"jnp.take({body.torch(weight, 0)}, {name}, axis=0)"
    if padding_idx is None:
        return Expr(rows)
    padding_idx %= body.example(weight).shape[0]
    rows = body.temporary("rows", rows)
    still = f"jax.lax.stop_gradient({rows})"
    return Expr(f"jnp.where(({name} == {padding_idx})[..., None], {still}, {rows})")


def _one_hot(body: Body, x: Any, num_classes: int = -1) -> Expr:
    if body.example(num_classes) == -1:
        raise UntranslatableError("one_hot without num_classes gives a shape that values decide")
    return Expr(f"jax.nn.one_hot({body.torch(x, 0)}, {body.expr(num_classes).text}, dtype=int)")


def _attention(
    body: Body,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: Any = None,
    enable_gqa: bool = False,
) -> Expr:
    if enable_gqa or body.ndim(query) not in (3, 4):
        raise UntranslatableError("attention of 3 or 4 axes only, without enable_gqa")
    there, back = ("b h t d", "b t h d") if body.ndim(query) == 4 else ("b t d", "b t 1 d")
    if scale is not None:
        width = body.example(query).shape[-1]
        factor = body.expr(scale)
        query_text = f"{body.torch(query, TERM)} * ({factor.within(TERM)} * {width} ** 0.5)"
    else:
        query_text = body.torch(query, 0)
    arrays = [query_text, body.torch(key, 0), body.torch(value, 0)]
    moved = ", ".join(f'rearrange({array}, "{there} -> {back}")' for array in arrays)
    options = ""
    if attn_mask is not None:
        new = {2: "[None, None]", 3: "[None]" if body.ndim(query) == 4 else "[:, None]"}
        mask = body.torch(attn_mask) + new.get(body.ndim(attn_mask), "")
        boolean = body.example(attn_mask).dtype == torch.bool
        options += f", {'mask' if boolean else 'bias'}={mask}"
    if is_causal:
        options += ", is_causal=True"
    body.draw()
    options += f", dropout={float(dropout_p)}, rngs=rngs"
    return Expr(f'rearrange(attend({moved}{options}), "{back} -> {there}")')


def _bilinear(body: Body, a: Any, b: Any, weight: Any, bias: Any = None) -> Expr:
    arrays = ", ".join(body.torch(x, 0) for x in (a, weight, b))
    form = f'jnp.einsum("...i,oij,...j->...o", {arrays})'
    return Expr(form) if bias is None else Expr(f"{form} + {body.torch(bias, SUM + 1)}", rank=SUM)


def _loss(name: str) -> Callable:
    def translate(body: Body, x: Any, target: Any, **options: Any) -> Expr:
        if name in ("cross_entropy", "nll_loss") and body.ndim(x) > 2:
            raise UntranslatableError(f"{name} of more than two axes has no translation")
        given = {key: value for key, value in options.items() if value is not None}
        if given.keys() & {"size_average", "reduce"}:
            raise UntranslatableError("size_average and reduce have no translation")
        more = "".join(f", {key}={body.expr(value).text}" for key, value in given.items())
        return Expr(f"layers.{name}({body.torch(x, 0)}, {body.torch(target, 0)}{more})")

    return translate


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "relu": _activation("jax.nn.relu"),
    "relu6": _activation("jax.nn.relu6"),
    "silu": _activation("jax.nn.silu"),
    "selu": _activation("jax.nn.selu"),
    "softsign": _activation("jax.nn.soft_sign"),
    **dict.fromkeys(["logsigmoid", "log_sigmoid"], _activation("jax.nn.log_sigmoid")),
    "gelu": _gelu,
    "leaky_relu": _layer("LeakyReLU", "negative_slope", "inplace"),
    "elu": _layer("ELU", "alpha", "inplace"),
    "celu": _layer("CELU", "alpha", "inplace"),
    "hardtanh": _layer("Hardtanh", "min_val", "max_val", "inplace"),
    "hardsigmoid": _layer("Hardsigmoid", "inplace"),
    "hardswish": _layer("Hardswish", "inplace"),
    "hardshrink": _layer("Hardshrink", "lambd"),
    "softshrink": _layer("Softshrink", "lambd"),
    "tanhshrink": _layer("Tanhshrink"),
    "threshold": _layer("Threshold", "threshold", "value", "inplace"),
    "softplus": _layer("Softplus", "beta", "threshold"),
    "mish": _layer("Mish", "inplace"),
    "prelu": _prelu,
    "glu": _glu,
    "softmax": _softmax("jax.nn.softmax"),
    "log_softmax": _softmax("jax.nn.log_softmax"),
    "softmin": _softmax("jax.nn.softmax", "-"),
    "dropout": _dropout("Dropout"),
    "dropout1d": _dropout("Dropout1d"),
    "dropout2d": _dropout("Dropout2d"),
    "dropout3d": _dropout("Dropout3d"),
    "alpha_dropout": _dropout("AlphaDropout"),
    "feature_alpha_dropout": _dropout("FeatureAlphaDropout"),
    **_pools("1d"),
    **_pools("2d"),
    **_pools("3d"),
    **{f"conv{count}d": _convolution(count) for count in (1, 2, 3)},
    "interpolate": _interpolate,
    "pad": _pad,
    "pixel_shuffle": _layer("PixelShuffle", "upscale_factor"),
    "pixel_unshuffle": _layer("PixelUnshuffle", "downscale_factor"),
    "local_response_norm": _layer("LocalResponseNorm", "size", "alpha", "beta", "k"),
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "normalize": _normalize,
    "cosine_similarity": _cosine,
    "bilinear": _bilinear,
    "embedding": _embedding,
    "one_hot": _one_hot,
    "scaled_dot_product_attention": _attention,
    **{
        name: _loss(name)
        for name in (
            *("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "nll_loss"),
            *("binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy"),
        )
    },
}
