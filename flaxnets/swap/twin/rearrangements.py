"""Torch's functions that rearrange, join, cut, pick and make tensors, as JAX text."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from flaxnets.swap.twin import layouts
from flaxnets.swap.twin.body import Body, UntranslatableError
from flaxnets.swap.twin.expressions import ATOM, TERM, Expr, literal
from flaxnets.swap.twin.operations import aligned, shape_text


def _size(body: Body, x: Any, dim: int) -> Expr:
    return Expr(f"{body.expr(x).within(ATOM)}.shape[{body.axis(x, dim)}]")


def _reshape(body: Body, x: Any, *sizes: Any, shape: Any = None) -> Expr:
    sizes = sizes or (shape,)
    if isinstance(body.example(sizes[0]), torch.dtype):
        raise UntranslatableError("view of the bits as another dtype has no translation")
    given = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
    return Expr(f"{body.torch(x)}.reshape({', '.join(body.expr(size).text for size in given)})")


def _reshape_as(body: Body, x: Any, other: Any) -> Expr:
    return Expr(f"{body.torch(x)}.reshape({body.variable(other)}.shape)")


def flatten(body: Body, x: Any, start_dim: int = 0, end_dim: int = -1) -> Expr:
    """Neighbouring axes in one."""
    ndim = body.ndim(x)
    start, end = start_dim % max(ndim, 1), end_dim % max(ndim, 1)
    layout = body.layout_of(x)
    if (start, end, layout) == (1, ndim - 1, 1) and ndim in layouts.CHANNELS:
        axes = layouts.names(ndim)
        before, after = " ".join(layouts.held(axes, 1)), " ".join(axes[1:])
        return Expr(f'rearrange({body.expr(x).text}, "{before} -> b ({after})")')
    if (start, end) == (0, ndim - 1):
        return Expr(f"{body.torch(x)}.reshape(-1)")
    name = body.variable(x)
    sizes = [f"{name}.shape[{index}]" for index in range(start)]
    sizes += ["-1", *(f"{name}.shape[{index}]" for index in range(end + 1, ndim))]
    return Expr(f"{name}.reshape({', '.join(sizes)})")


def unflatten(body: Body, x: Any, dim: int, sizes: Sequence[Any]) -> Expr:
    """One axis as several."""
    ndim, name = body.ndim(x), body.variable(x)
    dim %= ndim
    shape = [f"{name}.shape[{index}]" for index in range(dim)]
    shape += [body.expr(size).text for size in sizes]
    shape += [f"{name}.shape[{index}]" for index in range(dim + 1, ndim)]
    return Expr(f"{name}.reshape({', '.join(shape)})")


def _permute(body: Body, x: Any, *dims: Any) -> Expr:
    order = dims[0] if len(dims) == 1 and isinstance(dims[0], tuple | list) else dims
    return _ordered(body, x, [dim % body.ndim(x) for dim in order])


def _ordered(body: Body, x: Any, order: Sequence[int]) -> Expr:
    """An array with its axes, counted in torch's order, in another order."""
    expr, layout = body.expr(x), body.layout_of(x)
    axes = layouts.names(body.ndim(x), layout)
    before, after = layouts.held(axes, layout), [axes[dim] for dim in order]
    if before == after:
        return Expr(expr.text, None, expr.rank)
    return Expr(f'rearrange({expr.text}, "{" ".join(before)} -> {" ".join(after)}")')


def _transpose(body: Body, x: Any, dim0: int, dim1: int) -> Expr:
    order = list(range(body.ndim(x)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    if body.layout_of(x) is None:
        return Expr(f"{body.torch(x)}.swapaxes({dim0}, {dim1})")
    return _ordered(body, x, order)


def _t(body: Body, x: Any) -> Expr:
    text = body.torch(x)
    return Expr(text.removesuffix(".T") if text.endswith(".T") else f"{text}.T")


def _movedim(body: Body, x: Any, source: Any, destination: Any) -> Expr:
    return Expr(f"jnp.moveaxis({body.torch(x, 0)}, {source}, {destination})")


def _unsqueeze(body: Body, x: Any, dim: int) -> Expr:
    if dim == -1:
        return Expr(f"{body.torch(x)}[..., None]")
    if dim >= 0:
        return Expr(f"{body.torch(x)}[{':, ' * dim}None]")
    return Expr(f"jnp.expand_dims({body.torch(x, 0)}, {dim})")


def _squeeze(body: Body, x: Any, dim: Any = None) -> Expr:
    shape = body.example(x).shape
    if dim is None:
        return Expr(f"{body.torch(x)}.squeeze()")
    dims = [d for d in (dim if isinstance(dim, tuple | list) else (dim,)) if shape[d] == 1]
    if not dims:
        return body.expr(x)
    axes = dims[0] if len(dims) == 1 else literal(tuple(dims)).text
    return Expr(f"{body.torch(x)}.squeeze({axes})")


def _expand(body: Body, x: Any, *sizes: Any) -> Expr:
    given = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
    new = len(given) - body.ndim(x)
    if any(body.example(size) == -1 for size in given):
        name = body.variable(x)
        texts = [
            f"{name}.shape[{index - new}]" if body.example(size) == -1 else body.expr(size).text
            for index, size in enumerate(given)
        ]
        return Expr(f"jnp.broadcast_to({name}, ({', '.join(texts)}{',' * (len(texts) == 1)}))")
    return Expr(f"jnp.broadcast_to({body.torch(x, 0)}, {shape_text(body, sizes)})")


def _expand_as(body: Body, x: Any, other: Any) -> Expr:
    return Expr(f"jnp.broadcast_to({body.torch(x, 0)}, {body.variable(other)}.shape)")


def _repeat(body: Body, x: Any, *sizes: Any, **axes: Any) -> Expr:
    if len(sizes) == 1 and isinstance(sizes[0], str):
        return _einops(body, "repeat", x, sizes[0], axes)
    return Expr(f"jnp.tile({body.torch(x, 0)}, {shape_text(body, sizes)})")


def _repeat_interleave(body: Body, x: Any, repeats: Any, dim: Any = None) -> Expr:
    if torch.is_tensor(body.example(repeats)):
        raise UntranslatableError("repeat_interleave by a tensor gives a shape that values decide")
    text = f"jnp.repeat({body.torch(x, 0)}, {body.expr(repeats).text}"
    return Expr(f"{text})" if dim is None else f"{text}, axis={dim})")


def _rearrange(body: Body, x: Any, pattern: str, **axes: Any) -> Expr:
    return _einops(body, "rearrange", x, pattern, axes)


def _reduce(body: Body, x: Any, pattern: str, reduction: str, **axes: Any) -> Expr:
    if not isinstance(reduction, str):
        raise UntranslatableError("reduce by a function has no translation")
    return _einops(body, "reduce", x, pattern, {"": reduction, **axes})


def _einops(body: Body, function: str, x: Any, pattern: str, axes: dict[str, Any]) -> Expr:
    layout, left = body.layout_of(x), pattern.partition("->")[0].split()
    if isinstance(x, tuple | list):
        array = body.torch(x)
    elif layout is not None and len(left) == body.ndim(x) and not set("(.1") & set("".join(left)):
        array = body.expr(x).text  # the pattern can say how the array is held
        pattern = f"{' '.join(layouts.held(left, layout))} ->{pattern.partition('->')[2]}"
    else:
        array = body.torch(x, 0)
    options = "".join(
        f", {f'{key}=' if key else ''}{body.expr(value).text}" for key, value in axes.items()
    )
    return Expr(f'{function}({array}, "{pattern}"{options})')


# Joining and cutting


def _cat(body: Body, tensors: Any = None, dim: int = 0, **given: Any) -> Expr:
    tensors = given.get("tensors", tensors)
    exprs, layout = aligned(body, *tensors)
    axis = layouts.axis(dim, body.ndim(tensors[0]), layout)
    return Expr(f"jnp.concatenate([{', '.join(e.text for e in exprs)}], axis={axis})", layout)


def _stack(body: Body, tensors: Any = None, dim: int = 0, **given: Any) -> Expr:
    arrays = ", ".join(body.torch(tensor, 0) for tensor in given.get("tensors", tensors))
    return Expr(f"jnp.stack([{arrays}], axis={dim})")


def _chunk(body: Body, x: Any, chunks: int, dim: int = 0) -> Expr:
    size = body.example(x).shape[dim]
    return _split(body, x, -(-size // chunks), dim)


def _split(body: Body, x: Any, sizes: Any, dim: int = 0, **given: Any) -> Expr:
    length = body.example(x).shape[dim]
    sizes = body.example(sizes)
    if isinstance(sizes, int):
        sizes = [min(int(sizes), length - start) for start in range(0, length, int(sizes))]
    sizes = [int(body.example(size)) for size in sizes]
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes) - 1)]
    where = str(len(sizes)) if len(set(sizes)) == 1 else literal(ends).text
    expr = body.expr(x)
    return Expr(f"jnp.split({expr.text}, {where}, axis={body.axis(x, dim)})", expr.layout)


def _unbind(body: Body, x: Any, dim: int = 0) -> Expr:
    return Expr(f"jnp.unstack({body.torch(x, 0)}, axis={dim})")


def _select(body: Body, x: Any, dim: int, index: Any) -> Expr:
    before = ":, " * (dim % body.ndim(x))
    return Expr(f"{body.torch(x)}[{before}{body.expr(index).text}]")


def _narrow(body: Body, x: Any, dim: int, start: Any, length: Any) -> Expr:
    first, size = body.expr(start), body.expr(length)
    end = f"{first.within(TERM)} + {size.within(TERM)}"
    if isinstance(start, int) and isinstance(length, int):
        end = str(start + length)
    return Expr(f"{body.torch(x)}[{':, ' * (dim % body.ndim(x))}{first.text} : {end}]")


def _getitem(body: Body, x: Any, index: Any) -> Expr:
    entries: Sequence[Any] = index if isinstance(index, tuple) else (index,)
    if body.layout_of(x) is not None and (found := _sliced(body, x, entries)) is not None:
        return found
    text = body.torch(x)
    chosen = [e for e in entries if isinstance(e, list) or body.ndim(e) > 0]
    if any(torch.is_tensor(e := body.example(c)) and e.dtype == torch.bool for c in chosen):
        raise UntranslatableError("picking by a mask gives a shape that values decide")
    numbers = [isinstance(body.example(e), int) and not isinstance(e, bool) for e in entries]
    if chosen and any(numbers):  # NumPy takes a number among arrays for an array
        if None in entries or ... in [e for e in entries if not isinstance(e, fx.Node)]:
            raise UntranslatableError("numbers, arrays and None in one index have no translation")
        first = [e if number else slice(None) for e, number in zip(entries, numbers, strict=True)]
        text = f"{text}[{index_text(body, first)}]"
        entries = [e for e, number in zip(entries, numbers, strict=True) if not number]
    return Expr(f"{text}[{index_text(body, entries)}]")


def _sliced(body: Body, x: Any, entries: Sequence[Any]) -> Expr | None:
    """An index of slices and numbers, on the axes as they are held; None for any other index."""
    ndim, layout = body.ndim(x), body.layout_of(x)
    if any(
        not (entry is ... or isinstance(entry, slice) or isinstance(body.example(entry), int))
        for entry in entries
    ):
        return None
    at = next((i for i, entry in enumerate(entries) if entry is ...), len(entries))
    rest = entries[at + 1 :]
    middle = [slice(None)] * (ndim - at - len(rest))
    full = [*entries[:at], *middle, *rest]
    texts = [""] * ndim
    for dim, entry in enumerate(full):
        texts[body.axis(x, dim)] = body.expr(entry).text
    while texts and texts[-1] == ":":
        texts.pop()
    gone = [dim for dim, entry in enumerate(full) if not isinstance(entry, slice)]
    after = layouts.reduced(gone, ndim, layout)
    expr = body.expr(x)
    return Expr(f"{expr.within(ATOM)}[{', '.join(texts)}]" if texts else expr.text, after)


def _setitem(body: Body, x: Any, index: Any, value: Any) -> Expr:
    entries = index if isinstance(index, tuple) else (index,)
    arrays = any(isinstance(e, list) or body.ndim(e) > 0 for e in entries)
    if arrays and any(isinstance(body.example(e), int) for e in entries):
        raise UntranslatableError("numbers and arrays in one index have no translation")
    filled = body.torch(value, 0)
    return Expr(f"{body.torch(x)}.at[{index_text(body, entries)}].set({filled})")


def index_text(body: Body, entries: Sequence[Any]) -> str:
    """An index as Python text."""

    def text(entry: Any) -> str:
        if isinstance(entry, fx.Node):
            return body.torch(entry, 0)
        listed = isinstance(entry, list)
        return f"jnp.array({body.expr(entry).text})" if listed else body.expr(entry).text

    return ", ".join(map(text, entries))


def _index_select(body: Body, x: Any, dim: int, index: Any) -> Expr:
    return Expr(f"jnp.take({body.torch(x, 0)}, {body.torch(index, 0)}, axis={dim})")


def _gather(body: Body, x: Any, dim: int, index: Any) -> Expr:
    shapes = [list(body.example(array).shape) for array in (x, index)]
    for shape in shapes:
        shape.pop(dim)
    if shapes[0] != shapes[1]:
        raise UntranslatableError("gather by an index that is smaller than x has no translation")
    return Expr(f"jnp.take_along_axis({body.torch(x, 0)}, {body.torch(index, 0)}, axis={dim})")


def _roll(body: Body, x: Any, shifts: Any, dims: Any = None) -> Expr:
    axes = "" if dims is None or dims == () else f", axis={body.expr(dims).text}"
    return Expr(f"jnp.roll({body.torch(x, 0)}, {body.expr(shifts).text}{axes})")


def _flip(body: Body, x: Any, *dims: Any) -> Expr:
    given = dims[0] if len(dims) == 1 and isinstance(dims[0], tuple | list) else dims
    axes = tuple(body.axis(x, dim) for dim in given)
    expr = body.expr(x)
    return Expr(f"jnp.flip({expr.text}, axis={literal(axes).text})", expr.layout)


def _triangle(function: str) -> Callable:
    def translate(body: Body, x: Any, diagonal: int = 0) -> Expr:
        offset = f", {body.expr(diagonal).text}" if diagonal != 0 else ""
        return Expr(f"jnp.{function}({body.torch(x, 0)}{offset})")

    return translate


# New tensors


def _dtype(body: Body, dtype: Any) -> str:
    return "" if dtype is None else f", dtype={body.expr(dtype).text}"


def _filled(function: str) -> Callable:
    def translate(body: Body, *sizes: Any, size: Any = None, dtype: Any = None) -> Expr:
        shape = shape_text(body, sizes or (size,))
        return Expr(f"jnp.{function}({shape}{_dtype(body, dtype)})")

    return translate


def _full(body: Body, size: Any, fill_value: Any, dtype: Any = None) -> Expr:
    value = body.expr(fill_value).text
    return Expr(f"jnp.full({shape_text(body, (size,))}, {value}{_dtype(body, dtype)})")


def _arange(body: Body, *ends: Any, dtype: Any = None, **named: Any) -> Expr:
    ends = (*ends, *(named[key] for key in ("start", "end", "step") if key in named))
    return Expr(f"jnp.arange({', '.join(body.expr(e).text for e in ends)}{_dtype(body, dtype)})")


def _linspace(body: Body, start: Any, end: Any, steps: Any, dtype: Any = None) -> Expr:
    ends = ", ".join(body.expr(e).text for e in (start, end, steps))
    return Expr(f"jnp.linspace({ends}{_dtype(body, dtype)})")


def _eye(body: Body, n: Any, m: Any = None, dtype: Any = None) -> Expr:
    sizes = ", ".join(body.expr(e).text for e in (n, m) if e is not None)
    return Expr(f"jnp.eye({sizes}{_dtype(body, dtype)})")


def _tensor(body: Body, data: Any, dtype: Any = None) -> Expr:
    return Expr(f"jnp.array({body.expr(data).text}{_dtype(body, dtype)})")


def _like(function: str) -> Callable:
    def translate(body: Body, x: Any, dtype: Any = None) -> Expr:
        expr = body.expr(x)
        return Expr(f"jnp.{function}({expr.text}{_dtype(body, dtype)})", expr.layout)

    return translate


def _full_like(body: Body, x: Any, fill_value: Any, dtype: Any = None) -> Expr:
    expr, value = body.expr(x), body.expr(fill_value).text
    return Expr(f"jnp.full_like({expr.text}, {value}{_dtype(body, dtype)})", expr.layout)


def _new(function: str) -> Callable:
    def translate(body: Body, x: Any, *sizes: Any, size: Any = None, dtype: Any = None) -> Expr:
        shape = shape_text(body, sizes or (size,))
        return Expr(f"jnp.{function}({shape}, dtype={_dtype_of(body, x, dtype)})")

    return translate


def _new_full(body: Body, x: Any, size: Any, fill_value: Any, dtype: Any = None) -> Expr:
    filled = f"{shape_text(body, (size,))}, {body.expr(fill_value).text}"
    return Expr(f"jnp.full({filled}, dtype={_dtype_of(body, x, dtype)})")


def _dtype_of(body: Body, x: Any, dtype: Any) -> str:
    return f"{body.expr(x).within(ATOM)}.dtype" if dtype is None else body.expr(dtype).text


def _random(function: str) -> Callable:
    def translate(body: Body, *sizes: Any, size: Any = None, dtype: Any = None) -> Expr:
        shape = shape_text(body, sizes or (size,)) + _dtype(body, dtype)
        body.draw()
        return Expr(f"jax.random.{function}(rngs(), {shape})")

    return translate


def _random_like(function: str) -> Callable:
    def translate(body: Body, x: Any, dtype: Any = None) -> Expr:
        layout = body.layout_of(x)
        name = body.variable(x, layout)
        kind = f"{name}.dtype" if dtype is None else body.expr(dtype).text
        body.draw()
        return Expr(f"jax.random.{function}(rngs(), {name}.shape, {kind})", layout)

    return translate


def _bernoulli(body: Body, x: Any) -> Expr:
    layout = body.layout_of(x)
    name = body.variable(x, layout)
    body.draw()
    return Expr(f"jax.random.bernoulli(rngs(), {name}).astype({name}.dtype)", layout)


# Sequences of different lengths


def _pack(
    body: Body, x: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> Expr:
    if not isinstance(lengths, fx.Node):
        raise UntranslatableError("lengths that are not a tensor have no translation")
    node = _node_of(body, "pack_padded_sequence", x)
    body.packed[node] = (lengths, batch_first)
    return body.held(x, None)


def _pad(
    body: Body,
    sequence: Any,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: Any = None,
) -> tuple[Expr, Expr]:
    lengths, first = body.packed[sequence]
    if padding_value or first is not batch_first or total_length is None:
        raise UntranslatableError(
            "pad_packed_sequence needs total_length, zeros and the batch where it was"
        )
    return body.expr(sequence), Expr(body.torch(lengths, 0))


def _node_of(body: Body, name: str, x: Any) -> fx.Node:
    return next(
        user
        for user in x.users
        if getattr(user.target, "__name__", "") == name and user not in body.packed
    )


REARRANGEMENTS: dict[str, Callable[..., Any]] = {
    "size": _size,
    **dict.fromkeys(["view", "reshape"], _reshape),
    **dict.fromkeys(["view_as", "reshape_as"], _reshape_as),
    "flatten": flatten,
    "unflatten": unflatten,
    "permute": _permute,
    **dict.fromkeys(["transpose", "swapaxes", "swapdims"], _transpose),
    "t": _t,
    **dict.fromkeys(["movedim", "moveaxis"], _movedim),
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    **dict.fromkeys(["expand", "broadcast_to"], _expand),
    "expand_as": _expand_as,
    **dict.fromkeys(["repeat", "tile"], _repeat),
    "repeat_interleave": _repeat_interleave,
    "rearrange": _rearrange,
    "reduce": _reduce,
    **dict.fromkeys(["cat", "concat", "concatenate"], _cat),
    "stack": _stack,
    "chunk": _chunk,
    **dict.fromkeys(["split", "split_with_sizes"], _split),
    "unbind": _unbind,
    "select": _select,
    "narrow": _narrow,
    "getitem": _getitem,
    "setitem": _setitem,
    "index_select": _index_select,
    "gather": _gather,
    "roll": _roll,
    "flip": _flip,
    "tril": _triangle("tril"),
    "triu": _triangle("triu"),
    **{name: _filled("zeros") for name in ("zeros", "empty")},
    "ones": _filled("ones"),
    "full": _full,
    "arange": _arange,
    "linspace": _linspace,
    "eye": _eye,
    "tensor": _tensor,
    **{name: _like("zeros_like") for name in ("zeros_like", "empty_like", "zero")},
    "ones_like": _like("ones_like"),
    **dict.fromkeys(["full_like", "fill"], _full_like),
    **dict.fromkeys(["new_zeros", "new_empty"], _new("zeros")),
    "new_ones": _new("ones"),
    "new_full": _new_full,
    "randn": _random("normal"),
    "rand": _random("uniform"),
    "randn_like": _random_like("normal"),
    "rand_like": _random_like("uniform"),
    "bernoulli": _bernoulli,
    "pack_padded_sequence": _pack,
    "pad_packed_sequence": _pad,
}
