"""torch.nn's layers as `flaxnets.layers`: how each is built again, and the layout that it takes."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from flaxnets import layers
from flaxnets.swap.twin.expressions import literal
from flaxnets.swap.twin.layouts import Layout

DIMS = ("1d", "2d", "3d")
# Layers whose channels are the last axis; the number is how many axes are spatial.
SPATIAL = {
    f"{name}{dims}": 1 + index
    for name in (
        *("Conv", "ConvTranspose", "MaxPool", "AvgPool", "LPPool", "AdaptiveAvgPool"),
        *("AdaptiveMaxPool", "InstanceNorm", "Dropout", "ZeroPad", "ConstantPad"),
        *("ReflectionPad", "ReplicationPad", "CircularPad"),
    )
    for index, dims in enumerate(DIMS)
} | {"PixelShuffle": 2, "PixelUnshuffle": 2, "Softmax2d": 2}
CHANNELS_SECOND = frozenset(
    [
        *("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "LocalResponseNorm", "PReLU"),
        *("Dropout2d", "FeatureAlphaDropout", "Upsample", "Flatten", "Unflatten"),
    ]
)
ALONG_AN_AXIS = frozenset(["Softmax", "LogSoftmax", "Softmin", "GLU"])
IN_TORCHS_ORDER = frozenset(
    [
        *("Linear", "Bilinear", "LayerNorm", "RMSNorm", "Embedding", "EmbeddingBag", "RNN", "LSTM"),
        *("GRU", "RNNCell", "LSTMCell", "GRUCell", "MultiheadAttention", "Transformer"),
        *("TransformerEncoder", "TransformerEncoderLayer", "TransformerDecoder"),
        "TransformerDecoderLayer",
    ]
)
RECURRENT = frozenset(["RNN", "LSTM", "GRU"])
# What torch leaves to the shape of the input where no axis is named.
IMPLICIT_DIM = {0: 0, 1: 0, 3: 0}


@dataclass(frozen=True)
class Call:
    """The construction of a part of a model.

    Attributes:
        name: of what is called: a layer's, or a class's of the twin.
        args: values by parameter, defaults included.
        defaults: values that need not be written.
        first: how many parameters are written without their name.
        rngs: whether it takes `rngs`.
        module: of the user, where it is built by a class of the twin.
    """

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    first: int = 0
    rngs: bool = False
    module: nn.Module | None = None


def house(module: nn.Module) -> str | None:
    """The name of the layer of `flaxnets.layers` that a module of torch.nn is, if there is one."""
    return house_class(type(module))


def house_class(kind: type) -> str | None:
    """The same of a class."""
    name = kind.__name__
    known = kind.__module__.startswith("torch.nn.") and getattr(nn, name, None) is kind
    return name if known and isinstance(getattr(layers, name, None), type) else None


def inherited(kind: type) -> type[nn.Module] | None:
    """The layer of torch.nn that a user's class derives from, if there is one."""
    return next((parent for parent in kind.__mro__[1:] if house_class(parent)), None)


def layer(name: str, **args: Any) -> Call:
    """The construction of a layer of `flaxnets.layers`."""
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(getattr(layers, name).__init__).parameters.items()
        if key != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    rngs = parameters.pop("rngs", None)
    defaults = {k: p.default for k, p in parameters.items() if p.default is not p.empty}
    first = max(len(parameters) - len(defaults), 1 if next(iter(parameters), "") in args else 0)
    given = {key: _single(key, args[key]) for key in parameters if key in args}
    for key, value in given.items():
        if parameters[key].annotation in (float, "float") and type(value) is int:
            given[key] = float(value)
    return Call(
        name,
        given,
        defaults,
        first,
        rngs is not None and rngs.default is rngs.empty,
    )


def built(module: nn.Module, kind: str, dim: int | None = None) -> Call:
    """How a layer of torch.nn is built again.

    Args:
        module: the layer, or one of a class derived from it.
        kind: the layer's name.
        dim: the axis along which it works, where it has one, as the array is held.

    Raises:
        ValueError: an option that changes results and that `flaxnets.layers` has not.
    """
    for option in ("scale_grad_by_freq", "return_indices", "named_shape"):
        if getattr(module, option, False):
            raise ValueError(f"{kind}: {option} is not supported")
    if kind.startswith(("TransformerEncoder", "TransformerDecoder")):
        return _stack(module, kind)
    if kind == "Transformer":
        return _transformer(module)
    parameters = inspect.signature(getattr(layers, kind).__init__).parameters
    absent = ("divisor_override",) if kind == "AvgPool1d" else ()
    names = [name for name in parameters if name not in (*_NEVER, *absent)]
    args = {name: _read(module, kind, name) for name in names}
    if "dim" in args and kind in ALONG_AN_AXIS:
        args["dim"] = dim
    if "Pool" in kind and args.get("stride", 0) == args.get("kernel_size", 1):
        args.pop("stride")  # the default
    return layer(kind, **args)


_NEVER = ("self", "rngs", "args", "kwargs", "init")
_READ: dict[str, Callable[[Any], Any]] = {
    "bias": lambda m: m.bias if isinstance(m.bias, bool) else m.bias is not None,
}
_READ_OF: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("MultiheadAttention", "bias"): lambda m: m.in_proj_bias is not None,
    ("MultiheadAttention", "add_bias_kv"): lambda m: m.bias_k is not None,
    ("MultiheadAttention", "kdim"): lambda m: None if m.kdim == m.embed_dim else m.kdim,
    ("MultiheadAttention", "vdim"): lambda m: None if m.vdim == m.embed_dim else m.vdim,
}


def _read(module: Any, kind: str, name: str) -> Any:
    read = _READ_OF.get((kind, name)) or _READ.get(name)
    if name == "bias" and not getattr(
        module, "affine", getattr(module, "elementwise_affine", True)
    ):
        return True  # without weights there is none to leave out
    return read(module) if read else getattr(module, name)


def _single(key: str, value: Any) -> Any:
    """A tuple of equal numbers as the number, which layers take as well."""
    if not isinstance(value, tuple | list):
        return value
    value = tuple(value)
    is_shape = key == "unflattened_size" or (key == "normalized_shape" and len(value) > 1)
    if is_shape or not value or not isinstance(value[0], int | float):
        return value
    return value[0] if all(entry == value[0] for entry in value) else value


def _activation(layer: Any) -> str:
    function = layer.activation
    for name in ("relu", "gelu"):
        same = (getattr(nn.functional, name), getattr(torch, name, None))
        if function in same or type(function) is {"relu": nn.ReLU, "gelu": nn.GELU}[name]:
            return name
    raise ValueError(f"{type(layer).__name__}: activation {function!r} is not relu or gelu")


def _block(kind: str, block: Any) -> dict[str, Any]:
    """What a layer of a Transformer was built from."""
    if type(block) is not getattr(nn, kind):
        raise ValueError(f"{type(block).__name__} is not torch.nn's own {kind}")
    return {
        "d_model": block.linear1.in_features,
        "nhead": block.self_attn.num_heads,
        "dim_feedforward": block.linear1.out_features,
        "dropout": block.dropout1.p,
        "activation": _activation(block),
        "layer_norm_eps": block.norm1.eps,
        "batch_first": block.self_attn.batch_first,
        "norm_first": block.norm_first,
        "bias": block.linear1.bias is not None,
    }


def _stack(module: Any, kind: str) -> Call:
    if kind.endswith("Layer"):
        return layer(kind, **_block(kind, module))
    inner = f"{kind}Layer"
    settings = {str(_block(inner, block)) for block in module.layers}
    if len(settings) != 1:
        raise ValueError(f"the layers of {type(module).__name__} differ")
    norm = module.norm
    return layer(
        kind,
        **{
            f"{'encoder' if 'Encoder' in kind else 'decoder'}_layer": layer(
                inner, **_block(inner, module.layers[0])
            ),
            "num_layers": len(module.layers),
            "norm": None if norm is None else built(norm, "LayerNorm"),
        },
    )


def _transformer(module: Any) -> Call:
    encoder, decoder = module.encoder, module.decoder
    sizes = _block("TransformerEncoderLayer", encoder.layers[0])
    if sizes != _block("TransformerDecoderLayer", decoder.layers[0]):
        raise ValueError("the encoder and the decoder of a Transformer differ in size")
    parts = {}
    for name, part in (("encoder", encoder), ("decoder", decoder)):
        usual = part.norm is not None and part.norm.eps == sizes["layer_norm_eps"]
        if not usual or type(part) is not getattr(nn, f"Transformer{name.title()}"):
            parts[f"custom_{name}"] = _stack(part, f"Transformer{name.title()}")
    return layer(
        "Transformer",
        **sizes,
        **parts,
        num_encoder_layers=len(encoder.layers),
        num_decoder_layers=len(decoder.layers),
    )


def wanted(kind: str, ndim: int, given: Layout) -> Layout:
    """The layout in which a layer takes an array of so many axes that comes in another.

    >>> wanted("Conv2d", 4, None), wanted("Linear", 4, 1), wanted("ReLU", 4, 1)
    (1, None, 1)
    """
    if kind in IN_TORCHS_ORDER:
        return None
    if kind in SPATIAL:
        return max(ndim - 1 - SPATIAL[kind], 0)
    if kind in CHANNELS_SECOND:
        return 1
    return given


def text(call: Any, names: Mapping[int, str], taken: frozenset[str] = frozenset()) -> str:
    """A construction as Python text.

    Args:
        call: a `Call`, or what may stand among its arguments.
        names: names of the twin's classes by the identity of the user's module.
        taken: names that classes of the twin have and layers therefore must not.
    """
    if isinstance(call, list):
        return "[" + ", ".join(text(entry, names, taken) for entry in call) + "]"
    if isinstance(call, Raw):
        return call.text
    if not isinstance(call, Call):
        return literal(call).text
    written = []
    for index, (key, value) in enumerate(call.args.items()):
        if key.startswith("*"):
            written += [text(entry, names, taken) for entry in value]
        elif index < call.first and not (index == len(written) and _usual(call, key, value)):
            written.append(text(value, names, taken))
        elif index >= call.first and not _usual(call, key, value):
            written.append(f"{key}={text(value, names, taken)}")
    if call.rngs:
        written.append("rngs=rngs")
    name = call.name if call.module is None else names[id(call.module)]
    if call.module is None and name in taken:
        name = f"layers.{name}"
    return f"{name}({', '.join(written)})"


@dataclass(frozen=True)
class Raw:
    """Python text that stands for a value as it is."""

    text: str


def _usual(call: Call, key: str, value: Any) -> bool:
    """Whether a value is its parameter's default."""
    if key not in call.defaults or isinstance(value, Call | Raw):
        return False
    usual = call.defaults[key]
    return usual == value and isinstance(usual, bool) == isinstance(value, bool)
