"""torch.nn.functional as JAX text, and as layers of `flaxnets.layers` that hold nothing."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from flaxnets.swap.twin import layouts
from flaxnets.swap.twin.body import Body, UntranslatableError
from flaxnets.swap.twin.expressions import ATOM, SUM, TERM, Expr, literal
from flaxnets.swap.twin.layers import IMPLICIT_DIM, Raw, layer, text, wanted
from flaxnets.swap.twin.operations import OPERATIONS, translates  # noqa: F401


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
        if given.pop("return_indices", False):
            raise UntranslatableError("return_indices has no translation")
        if given.get("stride") in (None, (), []):
            given.pop("stride", None)
        return _applied(body, x, name, **given, **fixed)

    return translate


for _names, _function in (
    (("relu",), "jax.nn.relu({})"),
    (("relu6",), "jax.nn.relu6({})"),
    (("silu",), "jax.nn.silu({})"),
    (("selu",), "jax.nn.selu({})"),
    (("softsign",), "jax.nn.soft_sign({})"),
    (("logsigmoid", "log_sigmoid"), "jax.nn.log_sigmoid({})"),
):

    def _activation(body: Body, x: Any, _function: str = _function) -> Expr:
        expr = body.expr(x)
        return Expr(_function.format(expr.text), expr.layout)

    translates(*_names)(_activation)

for _key, _name, *_parameters in (
    ("leaky_relu", "LeakyReLU", "negative_slope"),
    ("elu", "ELU", "alpha"),
    ("celu", "CELU", "alpha"),
    ("hardtanh", "Hardtanh", "min_val", "max_val"),
    ("hardsigmoid", "Hardsigmoid"),
    ("hardswish", "Hardswish"),
    ("hardshrink", "Hardshrink", "lambd"),
    ("softshrink", "Softshrink", "lambd"),
    ("tanhshrink", "Tanhshrink"),
    ("threshold", "Threshold", "threshold", "value"),
    ("softplus", "Softplus", "beta", "threshold"),
    ("mish", "Mish"),
    ("pixel_shuffle", "PixelShuffle", "upscale_factor"),
    ("pixel_unshuffle", "PixelUnshuffle", "downscale_factor"),
    ("local_response_norm", "LocalResponseNorm", "size", "alpha", "beta", "k"),
):
    translates(_key)(_layer(_name, *_parameters))

for _dims in ("1d", "2d", "3d"):
    translates(f"max_pool{_dims}")(
        _layer(
            *(f"MaxPool{_dims}", "kernel_size", "stride", "padding", "dilation", "ceil_mode"),
            "return_indices",
        )
    )
    _more = () if _dims == "1d" else ("divisor_override",)
    translates(f"avg_pool{_dims}")(
        _layer(
            *(f"AvgPool{_dims}", "kernel_size", "stride", "padding", "ceil_mode"),
            *("count_include_pad", *_more),
        )
    )
    translates(f"lp_pool{_dims}")(
        _layer(f"LPPool{_dims}", "norm_type", "kernel_size", "stride", "ceil_mode")
    )
    translates(f"adaptive_avg_pool{_dims}")(_layer(f"AdaptiveAvgPool{_dims}", "output_size"))
    translates(f"adaptive_max_pool{_dims}")(
        _layer(f"AdaptiveMaxPool{_dims}", "output_size", "return_indices")
    )


@translates("gelu")
def _gelu(body: Body, x: Any, approximate: str = "none") -> Expr:
    expr = body.expr(x)
    return Expr(f"jax.nn.gelu({expr.text}, approximate={approximate == 'tanh'})", expr.layout)


def _softmax(function: str, sign: str = "") -> Callable:
    def translate(
        body: Body, x: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None
    ) -> Expr:
        expr = body.expr(x)
        dim = IMPLICIT_DIM.get(body.ndim(x), 1) if dim is None else dim
        operand = expr.text if dtype is None else (
            f"{expr.within(ATOM)}.astype({body.expr(dtype).text})"
        )
        operand = f"-{expr.within(ATOM)}" if sign else operand
        axis = body.axis(x, dim)
        along = "" if axis == -1 else f", axis={axis}"
        return Expr(f"{function}({operand}{along})", expr.layout)

    return translate


translates("softmax")(_softmax("jax.nn.softmax"))
translates("log_softmax")(_softmax("jax.nn.log_softmax"))
translates("softmin")(_softmax("jax.nn.softmax", "-"))


@translates("glu")
def _glu(body: Body, x: Any, dim: int = -1) -> Expr:
    expr = body.expr(x)
    return Expr(f"{text(layer('GLU', dim=body.axis(x, dim)), {})}({expr.text})", expr.layout)


@translates("prelu")
def _prelu(body: Body, x: Any, weight: Any) -> Expr:
    name, layout = body.variable(x, 1), layouts.settled(1, body.ndim(x))
    slopes = body.torch(weight)
    return Expr(f"jnp.where({name} > 0, {name}, {slopes} * {name})", layout)


# Randomness


def _dropout(name: str) -> Callable:
    def translate(body: Body, x: Any, p: float = 0.5, training: Any = True) -> Expr:
        return _applied(body, x, name, draws=True, p=float(p) if training else 0.0)

    return translate


for _name, _kind in (
    ("dropout", "Dropout"),
    ("dropout1d", "Dropout1d"),
    ("dropout2d", "Dropout2d"),
    ("dropout3d", "Dropout3d"),
    ("alpha_dropout", "AlphaDropout"),
    ("feature_alpha_dropout", "FeatureAlphaDropout"),
):
    translates(_name)(_dropout(_kind))


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
        return Expr(f"{called} + {body.torch(bias, TERM)}", 1, SUM)

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


for _count in (1, 2, 3):
    translates(f"conv{_count}d")(_convolution(_count))


@translates("interpolate", "upsample")
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


@translates("pad")
def _pad(body: Body, x: Any, pad: Any, mode: str = "constant", value: Any = None) -> Expr:
    layout, ndim = body.layout_of(x), body.ndim(x)
    zero: tuple[Any, Any] = (0, 0)
    widths = [zero] * ndim
    for index in range(len(pad) // 2):
        widths[body.axis(x, ndim - 1 - index)] = (pad[2 * index], pad[2 * index + 1])
    expr = body.expr(x)
    shown = ", ".join(body.expr(width).text for width in widths)
    if mode != "constant":
        return Expr(f'jnp.pad({expr.text}, ({shown}), mode="{PADDINGS[mode]}")', layout)
    if any(body.example(width) < 0 for pair in widths for width in pair):
        cropped = ", ".join(f"({body.expr(a).text}, {body.expr(b).text}, 0)" for a, b in widths)
        name = body.variable(x, layout)
        filling = body.expr(value or 0.0).text
        return Expr(f"jax.lax.pad({name}, jnp.array({filling}, {name}.dtype), ({cropped}))", layout)
    filling = f", constant_values={body.expr(value).text}" if value else ""
    return Expr(f"jnp.pad({expr.text}, ({shown}){filling})", layout)


# Normalisation


def _scaled(body: Body, normal: str, layout: Any, weight: Any, bias: Any) -> Expr:
    """What a layer without weights gives, with weights."""
    result, rank = normal, ATOM
    if weight is not None:
        result, rank = f"{result} * {body.torch(weight, TERM + 1)}", TERM
    if bias is not None:
        result, rank = f"{result} + {body.torch(bias, SUM + 1)}", SUM
    return Expr(result, layout, rank)


@translates("layer_norm")
def _layer_norm(
    body: Body, x: Any, normalized_shape: Any, weight: Any = None, bias: Any = None,
    eps: float = 1e-5,
) -> Expr:
    shape = _read(body, tuple(normalized_shape))
    call = text(
        layer("LayerNorm", normalized_shape=shape, eps=eps, elementwise_affine=False), {}
    )
    return _scaled(body, f"{call}({body.torch(x, 0)})", None, weight, bias)


@translates("group_norm")
def _group_norm(
    body: Body, x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Expr:
    channels = body.example(x).shape[1]
    call = text(
        layer("GroupNorm", num_groups=num_groups, num_channels=channels, eps=eps, affine=False), {}
    )
    return _scaled(body, f"{call}({body.held(x, 1).text})", 1, weight, bias)


@translates("normalize")
def _normalize(body: Body, x: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Expr:
    if p != 2:
        raise UntranslatableError(f"normalize of order {p} has no translation")
    layout = body.layout_of(x)
    name = body.variable(x, layout)
    axis = body.axis(x, dim)
    length = f"jnp.sqrt(jnp.square({name}).sum(axis={axis}, keepdims=True))"
    return Expr(f"{name} / jnp.maximum({length}, {eps!r})", layout, TERM)


@translates("cosine_similarity")
def _cosine(body: Body, a: Any, b: Any, dim: int = 1, eps: float = 1e-8) -> Expr:
    one, other = body.variable(a), body.variable(b)
    lengths = [
        f"jnp.maximum(jnp.sqrt(jnp.square({x}).sum(axis={dim})), {eps!r})" for x in (one, other)
    ]
    return Expr(f"({one} * {other}).sum(axis={dim}) / ({' * '.join(lengths)})", rank=TERM)


# Look-ups and attention


@translates("embedding")
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
    if padding_idx is None or padding_idx < 0:
        return Expr(rows)
    rows = body.temporary("rows", rows)
    still = f"jax.lax.stop_gradient({rows})"
    return Expr(f"jnp.where(({name} == {padding_idx})[..., None], {still}, {rows})")


@translates("one_hot")
def _one_hot(body: Body, x: Any, num_classes: int = -1) -> Expr:
    if body.example(num_classes) == -1:
        raise UntranslatableError("one_hot without num_classes gives a shape that values decide")
    return Expr(f"jax.nn.one_hot({body.torch(x, 0)}, {body.expr(num_classes).text}, dtype=int)")


@translates("scaled_dot_product_attention")
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


# Losses

for _name in (
    *("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "binary_cross_entropy"),
    *("binary_cross_entropy_with_logits", "cross_entropy", "nll_loss"),
):

    def _loss(body: Body, x: Any, target: Any, _name: str = _name, **options: Any) -> Expr:
        if _name in ("cross_entropy", "nll_loss") and body.ndim(x) > 2:
            raise UntranslatableError(f"{_name} of more than two axes has no translation")
        options = {k: v for k, v in options.items() if k not in ("size_average", "reduce")}
        options = {k: v for k, v in options.items() if v is not None}
        more = "".join(f", {key}={body.expr(value).text}" for key, value in options.items())
        return Expr(f"layers.{_name}({body.torch(x, 0)}, {body.torch(target, 0)}{more})")

    translates(_name)(_loss)

