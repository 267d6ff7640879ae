"""What the classes of a twin hold: one class for all modules that differ in numbers only."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from flaxnets import layers as house_layers
from flaxnets.bridge.rules import rule
from flaxnets.swap.twin import layers
from flaxnets.swap.twin.calls import Code
from flaxnets.swap.twin.expressions import literal
from flaxnets.swap.twin.layers import Call, Raw
from flaxnets.swap.twin.modules import Translator
from flaxnets.swap.twin.problems import TranslationError

MOST_WRITTEN = 16  # entries of a constant that is written out
# Submodules that a layer of torch.nn has of its own.
INSIDE = {
    "MultiheadAttention": ("out_proj",),
    "TransformerEncoder": ("layers", "norm"),
    "TransformerDecoder": ("layers", "norm"),
    "Transformer": ("encoder", "decoder"),
}


class MismatchError(Exception):
    """Two modules differ in more than numbers."""


@dataclass(frozen=True)
class Slot:
    """A number in which the modules of a class differ."""

    attribute: str
    key: str
    values: tuple[Any, ...]


@dataclass
class Class:
    """A class of the twin.

    Attributes:
        name: of the class.
        code: what its modules compute, which is the same for all.
        modules: the user's.
        attributes: what the constructor sets, in order; "" is what it hands to the class above.
        parameters: of the constructor, with the value that each module has.
        rngs: whether the constructor takes `rngs`.
    """

    name: str
    code: Code
    modules: list[nn.Module]
    attributes: dict[str, Any]
    parameters: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    rngs: bool = False


class Construction:
    """The classes of a twin, from the modules that were translated.

    Attributes:
        classes: in the order in which they are defined, the root's last.
        constants: arrays that are too large to be written out, by name.
    """

    def __init__(self, translator: Translator) -> None:
        self.translator = translator
        self.classes: list[Class] = []
        self.constants: dict[str, np.ndarray] = {}
        self._of: dict[int, tuple[Class, int]] = {}
        for kind in self._kinds():
            self._enter(kind)

    def _codes(self) -> list[Code]:
        modules = self.translator.root.modules()
        return [self.translator.codes[id(m)] for m in modules if id(m) in self.translator.codes]

    def _kinds(self) -> list[type]:
        """The user's classes, each behind those that it is made of."""
        ordered: list[type] = []
        open_kinds: set[type] = set()

        def visit(kind: type) -> None:
            if kind in open_kinds:
                return
            open_kinds.add(kind)
            for code in self._codes():
                if type(code.module) is kind:
                    for inner in code.module.modules():
                        if id(inner) in self.translator.codes:
                            visit(type(inner))
            ordered.append(kind)

        visit(type(self.translator.root))
        return ordered

    def _enter(self, kind: type) -> None:
        """The classes for the modules of one of the user's classes."""
        variants: list[list[tuple[Code, dict[str, Any]]]] = []
        for code in (
            reversed(self._codes()) if kind is not type(self.translator.root) else (self._codes())
        ):
            if type(code.module) is not kind:
                continue
            held = self._held(code)
            for variant in variants:
                try:
                    if _calls(variant[0][0]) == _calls(code):
                        _unified([each for _, each in variant] + [held])
                        variant.append((code, held))
                        break
                except MismatchError:
                    continue
            else:
                variants.append([(code, held)])
        for variant in variants:
            self._define(kind, [code for code, _ in variant], [held for _, held in variant])

    def _define(self, kind: type, codes: Sequence[Code], held: list[dict[str, Any]]) -> None:
        base = "Model" if kind.__module__.startswith("torch.") else kind.__name__
        used = {known.name for known in self.classes}
        name, number = base, 1
        while name in used:
            number += 1
            name = f"{base}{number}"
        merged = _unified(held)
        modules = [code.module for code in codes]
        fresh = Class(name, codes[0], modules, {}, rngs=_takes_rngs(merged))
        by_values: dict[str, str] = {}
        fresh.attributes = {
            key: _named(value, fresh.parameters, by_values) for key, value in merged.items()
        }
        self.classes.append(fresh)
        for index, module in enumerate(modules):
            self._of[id(module)] = fresh, index

    # What a module holds

    def _held(self, code: Code) -> dict[str, Any]:
        module, base = code.module, code.base
        held: dict[str, Any] = {}
        skipped: set[str] = set()
        path = self.translator.paths[id(module)]
        if base is not None:
            kind = base.__name__
            held[""] = layers.built(module, kind, self.translator.axes.get(id(module), (0, 0))[1])
            leaves = rule(getattr(house_layers, kind)) or ()
            skipped = {leaf.torch for leaf in leaves} | set(INSIDE.get(kind, ()))
            if not leaves:
                skipped |= set(_fresh_names(module, base))
        elif isinstance(module, nn.Sequential) and _counted(module):
            held[""] = Call("nnx.Sequential", {"*": self._children(module)})
            skipped = set(module._modules)
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if name in skipped or tensor is None:
                continue
            full = f"{path}.{name}".lstrip(".")
            owner = self.translator.owners.get(id(tensor))
            if owner is None:
                held[name] = self._constant(full, tensor)
            elif owner == full:
                self._check_name(module, name)
                held[name] = _variable(tensor)
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                held[name] = self._constant(f"{path}.{name}".lstrip("."), value)
        for name, child in module._modules.items():
            if name in skipped or child is None or not self._is_first(module, name, child):
                continue
            construction = self._constructed(child)
            if construction is not None:
                self._check_name(module, name)
                held[name] = construction
        return held

    def _check_name(self, module: nn.Module, name: str) -> None:
        if name.startswith("_"):
            raise TranslationError(
                f"{type(module).__name__}.{name} begins with _, which the bridge takes for private"
            )

    def _is_first(self, module: nn.Module, name: str, child: nn.Module) -> bool:
        path = self.translator.paths[id(module)]
        return self.translator.paths[id(child)] == f"{path}.{name}".lstrip(".")

    def _children(self, module: nn.Module) -> list[Any]:
        return [
            self._constructed(child, among=True)
            if self._is_first(module, name, child)
            else Raw("None")
            for name, child in module._modules.items()
            if child is not None
        ]

    def _constructed(self, module: nn.Module, among: bool = False) -> Any:
        """How a module is built; None where it holds nothing and is only an attribute."""
        if id(module) in self._of:
            known, index = self._of[id(module)]
            args = {key: values[index] for key, values in known.parameters.items()}
            return Call(known.name, args, {}, len(args), known.rngs, module)
        if type(module) is nn.Identity:
            return Raw("nnx.identity") if among else None
        if type(module) is nn.Sequential and _counted(module):
            return Call("nnx.Sequential", {"*": self._children(module)})
        if isinstance(module, nn.ModuleList):
            return Call("nnx.List", {"*": [self._children(module)]})
        if isinstance(module, nn.ModuleDict | nn.Sequential):
            entries = {
                name: self._constructed(child, among=True)
                for name, child in module._modules.items()
                if child is not None
            }
            return Call("nnx.Dict", {"*": [entries]})
        if self.translator.is_whole(module) and not self.translator.is_user(module):
            kind = layers.house(module) or ""
            dim = getattr(module, "dim", -1)
            return layers.built(module, kind, self.translator.axes.get(id(module), (0, dim))[1])
        return self._bare(module, among)

    def _bare(self, module: nn.Module, among: bool) -> Any:
        """The weights of a module that the twin writes out as operations, or never calls."""
        path = self.translator.paths[id(module)]
        entries: dict[str, Any] = {}
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and self.translator.owners.get(id(tensor)) == f"{path}.{name}":
                entries[name] = _variable(tensor)
        for name, child in module._modules.items():
            if child is not None and self._is_first(module, name, child):
                inner = self._constructed(child)
                if inner is not None:
                    entries[name] = inner
        return Call("nnx.Dict", {"*": [entries]}) if entries or among else None

    def _constant(self, name: str, tensor: torch.Tensor) -> Raw:
        array = tensor.detach().cpu().numpy()
        if array.size <= MOST_WRITTEN and array.dtype.kind in "fiub":
            return Raw(f"np.array({literal(array.tolist()).text}, np.{array.dtype})")
        self.constants[name] = array
        return Raw(f'CONSTANTS["{name}"]')


def _counted(module: nn.Module) -> bool:
    return all(name.isdigit() for name in module._modules)


def _fresh_names(module: nn.Module, base: type) -> list[str]:
    """Names of the weights that a layer of torch.nn without a rule has of its own."""
    starts = ("weight_", "bias_", "in_proj_", "q_proj_", "k_proj_", "v_proj_")
    return [name for name in module._parameters if name.startswith(starts)]


def _variable(tensor: torch.Tensor) -> Raw:
    """A weight or buffer that starts, where its weights are not carried, about as it is."""
    values = tensor.detach().double() if tensor.is_floating_point() else tensor.detach()
    shape = literal(tuple(tensor.shape)).text
    kind = "nnx.Param" if isinstance(tensor, nn.Parameter) else "nnx.BatchStat"
    dtype = f", jnp.{str(tensor.dtype).partition('.')[2]}"
    if tensor.dtype in (torch.float32, torch.float64):
        dtype = ""  # JAX's own, which float64 is where there are 64 bits
    elif tensor.dtype == torch.int64:
        dtype = ", int"
    first = values.reshape(-1)[0].item() if values.numel() else 0
    if (values == first).all():
        made = "zeros" if first == 0 else "ones" if first == 1 else ""
        text = f"jnp.{made}({shape}{dtype})" if made else f"jnp.full({shape}, {first!r}{dtype})"
    elif isinstance(tensor, nn.Parameter):
        spread = float(f"{values.std().item():.2g}")
        text = f"nnx.initializers.normal({spread})(rngs.params(), {shape}{dtype})"
    elif tensor.numel() <= MOST_WRITTEN:
        text = f"jnp.array({literal(tensor.tolist()).text}{dtype})"
    else:
        text = f"jnp.zeros({shape}{dtype})"
    return Raw(f"{kind}({text})")


def _calls(code: Code) -> tuple:
    return (
        code.base,
        code.lines,
        code.training,
        list(code.given),
        code.foreign.keys(),
        code.draws,
        code.modes,
    )


def _takes_rngs(value: Any) -> bool:
    if isinstance(value, Raw):
        return "rngs" in value.text
    if isinstance(value, Call):
        return value.rngs or any(_takes_rngs(entry) for entry in value.args.values())
    if isinstance(value, dict):
        return any(_takes_rngs(entry) for entry in value.values())
    return isinstance(value, list) and any(_takes_rngs(entry) for entry in value)


def _unified(values: Sequence[Any], attribute: str = "", key: str = "") -> Any:
    """Several constructions as one, with slots where they differ in a number."""
    first = values[0]
    if any(type(value) is not type(first) for value in values):
        if all(isinstance(value, int | float | tuple | None) for value in values):
            return Slot(attribute, key, tuple(values))
        raise MismatchError
    if isinstance(first, Call):
        if any((value.name, value.rngs) != (first.name, first.rngs) for value in values):
            raise MismatchError
        filled = [{**c.defaults, **c.args} for c in values]
        keys = [k for k in filled[0] if any(k in c.args for c in values)]
        if any(filled_one.keys() != filled[0].keys() for filled_one in filled):
            raise MismatchError
        order = [*[k for k in first.args if k in keys], *[k for k in keys if k not in first.args]]
        if first.defaults:
            signature = [*[k for k in filled[0] if k not in first.defaults], *first.defaults]
            order = [k for k in signature if k in keys]
        return replace(
            first, args={k: _unified([c[k] for c in filled], attribute, k) for k in order}
        )
    if isinstance(first, dict):
        if any(list(value) != list(first) for value in values):
            raise MismatchError
        return {k: _unified([v[k] for v in values], attribute or k, key or k) for k in first}
    if isinstance(first, list):
        if any(len(value) != len(first) for value in values):
            raise MismatchError
        columns = zip(*values, strict=True)
        return [_unified(column, attribute, key) for column in columns]
    if all(value == first for value in values):
        return first
    if isinstance(first, Raw):
        raise MismatchError
    return Slot(attribute, key, tuple(values))


def _named(value: Any, parameters: dict[str, tuple], by_values: dict[str, str]) -> Any:
    """A construction with parameters of the constructor in the place of slots."""
    if isinstance(value, Slot):
        found = by_values.get(repr(value.values))
        if found is None:
            found = value.key.lstrip("*") or value.attribute
            if found in parameters:
                found = f"{value.attribute}_{found}"
            number = 1
            while found in parameters:
                number += 1
                found = f"{value.attribute}_{value.key}_{number}"
            parameters[found] = value.values
            by_values[repr(value.values)] = found
        return Raw(found)
    if isinstance(value, Call):
        return replace(
            value, args={k: _named(v, parameters, by_values) for k, v in value.args.items()}
        )
    if isinstance(value, dict):
        return {k: _named(v, parameters, by_values) for k, v in value.items()}
    if isinstance(value, list):
        return [_named(entry, parameters, by_values) for entry in value]
    return value
