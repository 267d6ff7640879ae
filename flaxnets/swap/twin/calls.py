"""What the forward pass of one module sees of the modules inside it: their weights and calls."""

import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import fx, nn
from torch.fx.node import map_arg

from flaxnets import layers as house_layers
from flaxnets.bridge.rules import Leaf, rule
from flaxnets.swap.twin import layers, layouts
from flaxnets.swap.twin.body import Body, UntranslatableError
from flaxnets.swap.twin.expressions import Expr
from flaxnets.swap.twin.layouts import Layout
from flaxnets.swap.twin.rearrangements import flatten, unflatten


@dataclass
class Code:
    """A class of the twin, as one module of the user needs it.

    Attributes:
        module: of the user.
        base: the layer of torch.nn that its class derives from.
        given: layouts of the arguments of a call, by name.
        keywords: the arguments that are given by name.
        lines: statements of a call; those of evaluation and training where they differ.
        training: the statements in training, where they differ.
        layout: of what a call returns.
        foreign: weights of other modules that a call needs: their names by that of the argument.
        draws: whether a call takes `rngs`.
        noisy: whether a call draws in evaluation, too.
        modes: whether a call reads `deterministic`.
    """

    module: nn.Module
    base: type[nn.Module] | None
    given: dict[str, Any]
    keywords: frozenset[str] = frozenset()
    lines: list[str] = field(default_factory=list)
    training: list[str] | None = None
    layout: Any = None
    foreign: dict[str, str] = field(default_factory=dict)
    draws: bool = False
    noisy: bool = False
    modes: bool = False


class Classes(Protocol):
    """The classes of the twin, as far as they are known.

    Attributes:
        axes: of layers along an axis, as held, by the layer's id.
        owners: the names of weights, by their ids.
        paths: of modules, by their ids.
    """

    axes: dict[int, tuple[Layout, int]]
    owners: dict[int, str]
    paths: dict[int, str]

    def is_user(self, module: nn.Module) -> bool:
        """Whether a class of the twin stands for a module."""

    def is_whole(self, module: nn.Module) -> bool:
        """Whether a module of torch.nn is a layer of the twin with weights that are its own."""

    def code(self, module: nn.Module, arguments: Mapping[str, Any], given: dict[str, Any]) -> Code:
        """The class for a module, from one of its calls."""


class View:
    """What the forward pass of one module sees of the modules inside it."""

    def __init__(self, classes: Classes, code: Code) -> None:
        self.classes = classes
        self.code = code
        self.module = code.module

    def located(self, path: str) -> str:
        """How a module inside is reached."""
        text, module = "self", self.module
        for name in path.split(".") if path else ():
            text += step(self.classes, module, name)
            module = module._modules[name]  # type: ignore[assignment]
        return text

    def parameter(self, path: str) -> Expr:
        """The text of a parameter, buffer or constant, in torch's layout."""
        tensor: Any = self.module
        for name in path.split("."):
            tensor = getattr(tensor, name)
        owner = self.classes.owners.get(id(tensor))
        if owner is None:
            inside, _, name = path.rpartition(".")
            return Expr(f"jnp.asarray({self.located(inside)}.{name})")
        prefix = self.classes.paths[id(self.module)]
        if not owner.startswith(f"{prefix}." if prefix else ""):
            name = "_".join(owner.split(".")[-2:])
            self.code.foreign[name] = owner
            return Expr(name, names=frozenset([name]))
        return self._own(owner[len(prefix) + 1 :] if prefix else owner)

    def _own(self, path: str) -> Expr:
        inside, _, name = path.rpartition(".")
        holder = self.module.get_submodule(inside)
        access = self.located(inside)
        kind: Any = layers.house(holder) if self.classes.is_whole(holder) else None
        base = layers.inherited(type(holder)) if self.classes.is_user(holder) else None
        kind = kind or (base and base.__name__)
        if kind is not None:
            entries = rule(getattr(house_layers, kind)) or ()
            for leaf in entries:
                if isinstance(leaf, Leaf) and leaf.torch == name:
                    return _rearranged(f"{access}.{leaf.flax}[...]", leaf.to_torch())
        elif not self.classes.is_user(holder):
            return Expr(f'{access}["{name}"][...]')
        return Expr(f"{access}.{name}[...]")

    def call(self, body: Body, node: fx.Node) -> Expr:
        """The text of a submodule's call."""
        module = self.module.get_submodule(str(node.target))
        access = self.located(str(node.target))
        if type(module) is nn.Identity:
            return body.expr(node.args[0])
        if self.classes.is_user(module):
            return self._user_call(body, node, module, access)
        if type(module) is nn.Sequential:
            return self._chain(body, node, module, access)
        return self._layer_call(body, node, module, layers.house(module) or "", access)

    def inherited_call(self, body: Body, node: fx.Node) -> Expr:
        """The text of the call of the layer that the class derives from."""
        assert self.code.base is not None
        kind = self.code.base.__name__
        return self._layer_call(body, node, self.module, kind, "super().__call__")

    def _layer_call(self, body: Body, node: fx.Node, module: Any, kind: str, access: str) -> Expr:
        args, kwargs = list(node.args), dict(node.kwargs)
        if "input" in kwargs:
            args.insert(0, kwargs.pop("input"))
        first: Any = args[0] if args else kwargs.pop("src", None)
        layout = layers.wanted(kind, body.ndim(first), body.layout_of(first))
        if kind == "Flatten" and module.start_dim % body.ndim(first) == 0:
            return flatten(body, first, module.start_dim, module.end_dim)
        if kind == "Unflatten" and (module.dim not in (1, -1) or body.ndim(first) != 2):
            return unflatten(body, first, module.dim, module.unflattened_size)
        if kind in layers.ALONG_AN_AXIS:
            layout = self._along(body, first, module)
        written = [body.held(first, layout).text]
        for arg in args[1:]:
            written.append(body.torch(arg, 0))
        while len(written) > 1 and written[-1] == "None":
            written.pop()
        for key, value in kwargs.items():
            if value is not None:
                written.append(f"{key}={body.torch(value, 0)}")
        if kind in layers.RECURRENT and first in body.packed:
            lengths, batch_first = body.packed[first]
            written.append(f"lengths={body.torch(lengths, 0)}")
            for user in node.users:
                if user.target is not None and user.args[1:] == (0,):
                    body.packed[user] = (lengths, batch_first)
        if "rngs" in inspect.signature(getattr(house_layers, kind).__call__).parameters:
            written.append("rngs=rngs")
            body.draw()
        after = layout
        if isinstance(node.meta["example"], torch.Tensor):
            after = layouts.settled(1 if kind == "Unflatten" else layout, body.ndim(node))
        return Expr(f"{access}({', '.join(written)})", after)

    def _along(self, body: Body, x: Any, module: Any) -> Layout:
        """The layout in which a layer along an axis takes an array; its axis is remembered."""
        ndim = body.ndim(x)
        dim = layers.IMPLICIT_DIM.get(ndim, 1) if module.dim is None else module.dim
        layout, axis = self.classes.axes.setdefault(
            id(module), (body.layout_of(x), body.axis(x, dim))
        )
        if layouts.axis(dim, ndim, layout) % ndim != axis % ndim:
            raise UntranslatableError("a layer along an axis is called with different axes")
        return layout

    def _user_call(self, body: Body, node: fx.Node, module: nn.Module, access: str) -> Expr:
        signature = inspect.signature(type(module).forward)
        bound = signature.bind(module, *node.args, **node.kwargs)
        arguments: dict[str, Any] = {}
        positional, keywords = True, []
        for name, parameter in list(signature.parameters.items())[1:]:
            if name not in bound.arguments:
                positional = False
                continue
            value = bound.arguments[name]
            if parameter.kind is parameter.VAR_POSITIONAL:
                arguments |= {f"{name}_{i}": entry for i, entry in enumerate(value)}
            elif parameter.kind is parameter.VAR_KEYWORD:
                arguments |= value
            else:
                arguments[name] = value
            if not _holds_nodes(value):
                positional = False
            elif not positional:
                keywords.append(name)
        held = {name: value for name, value in arguments.items() if _holds_nodes(value)}
        given = {name: mapped(value, body.layout_of) for name, value in held.items()}
        examples = {name: mapped(value, body.example) for name, value in arguments.items()}
        code = self.classes.code(module, examples, given)
        if set(code.given) != set(held):
            raise UntranslatableError(f"{type(module).__name__} is called in two ways")
        code.keywords = frozenset(keywords)
        written = []
        for name, value in held.items():
            text = _text(body, value, code.given[name])
            written.append(f"{name}={text}" if name in code.keywords else text)
        for name, owner in code.foreign.items():
            prefix = self.classes.paths[id(self.module)]
            inside = owner.startswith(f"{prefix}." if prefix else "")
            text = self._own(owner[len(prefix) + 1 :] if prefix else owner).text if inside else name
            if not inside:
                self.code.foreign[name] = owner
            written.append(f"{name}={text}")
        if code.draws:
            written.append("rngs=rngs")
            body.draw()
        return Expr(f"{access}({', '.join(written)})", code.layout)

    def _chain(self, body: Body, node: fx.Node, module: nn.Sequential, access: str) -> Expr:
        """The call of a Sequential: whole, or layer by layer where layouts change between."""
        x: Any = node.args[0]
        example, layout, draws, first = body.example(x), body.layout_of(x), False, None
        whole = all(name.isdigit() for name in module._modules)
        for index, child in enumerate(module):
            before = layout
            with torch.no_grad():
                after = child(example.clone())
            layout, wanted, drew = self._passed(child, example, layout, after)
            if index == 0:
                first = wanted
            elif layouts.pattern(example.dim(), before, wanted) is not None:
                whole = False
            whole, draws, example = whole and isinstance(after, torch.Tensor), draws or drew, after
        if whole:
            text = body.held(x, first).text
            if draws:
                body.draw()
            return Expr(f"{access}({text}{', rngs=rngs' if draws else ''})", layout)
        return self._layer_by_layer(body, node, module)

    def _passed(
        self, module: nn.Module, example: Any, layout: Layout, after: Any
    ) -> tuple[Any, Layout, bool]:
        """Layout after a module, the one that it wants, and whether it draws."""
        if type(module) is nn.Identity:
            return layout, layout, False
        if type(module) is nn.Sequential:
            wanted, drew = layout, False
            for index, child in enumerate(module):
                with torch.no_grad():
                    result = child(example.clone())
                before = layout
                layout, inner, draws = self._passed(child, example, layout, result)
                wanted = inner if index == 0 else wanted
                if index and layouts.pattern(example.dim(), before, inner) is not None:
                    return layout, -1, drew  # a layout that no array has
                example, drew = result, drew or draws
            return layout, wanted, drew
        if self.classes.is_user(module):
            parameters = list(inspect.signature(type(module).forward).parameters)
            name = parameters[1]
            if (
                list(inspect.signature(type(module).forward).parameters.values())[1].kind
                is inspect.Parameter.VAR_POSITIONAL
            ):
                name = f"{name}_0"
            code = self.classes.code(module, {name: example}, {name: layout})
            return code.layout, code.given[name], code.draws
        kind = layers.house(module) or ""
        wanted = layers.wanted(kind, example.dim(), layout)
        if kind in layers.ALONG_AN_AXIS:
            dim: Any = module.dim
            dim = layers.IMPLICIT_DIM.get(example.dim(), 1) if dim is None else dim
            axis = layouts.axis(dim, example.dim(), layout)
            wanted = self.classes.axes.setdefault(id(module), (layout, axis))[0]
        if kind == "Flatten" and module.start_dim == 0:
            return layout, -1, False
        if kind == "Unflatten" and (module.dim not in (1, -1) or example.dim() != 2):
            return layout, -1, False
        drew = "rngs" in inspect.signature(getattr(house_layers, kind).__call__).parameters
        final = 1 if kind == "Unflatten" else wanted
        if isinstance(after, torch.Tensor):
            final = layouts.settled(final, after.dim())
        return final, wanted, drew

    def _layer_by_layer(self, body: Body, node: fx.Node, module: nn.Sequential) -> Expr:
        value, expr = node.args[0], body.expr(node.args[0])
        for name, child in module._modules.items():
            assert child is not None
            part = node.graph.create_node("call_module", f"{node.target}.{name}", (value,), {})
            with torch.no_grad():
                example = child(body.example(value).clone())
            part.meta |= {"example": example, "where": node.meta["where"]}
            expr = self.call(body, part)
            body.adopt(part, expr, last=name == list(module._modules)[-1])
            value = part
        return expr


def step(classes: Classes, module: nn.Module, name: str) -> str:
    """How a module's child is reached from it."""
    if isinstance(module, nn.Sequential) and all(key.isdigit() for key in module._modules):
        return f".layers[{name}]"
    if isinstance(module, nn.ModuleList):
        return f"[{name}]"
    if classes.is_user(module) or classes.is_whole(module):
        return f".{name}"
    return f'["{name}"]'


def _rearranged(text: str, pattern: str | None) -> Expr:
    if pattern is None:
        return Expr(text)
    if pattern == "i o -> o i":
        return Expr(f"{text}.T")
    return Expr(f'rearrange({text}, "{pattern}")')


def _text(body: Body, value: Any, layout: Any) -> str:
    if isinstance(value, tuple | list):
        if (whole := _whole(value)) is not None:
            return body.expr(whole).text
        parts = [_text(body, entry, inner) for entry, inner in zip(value, layout, strict=True)]
        if isinstance(value, list):
            return f"[{', '.join(parts)}]"
        return f"({', '.join(parts)}{',' * (len(parts) == 1)})"
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f'"{k}": {_text(body, v, layout[k])}' for k, v in value.items()) + "}"
        )
    return body.held(value, layout).text


def _whole(value: Any) -> fx.Node | None:
    """The argument that a tuple is taken apart from, entry by entry, and that is handed on."""
    parents = {
        entry.args[0] if isinstance(entry, fx.Node) and entry.target is operator.getitem else None
        for entry in value
    }
    parent = parents.pop() if len(parents) == 1 else None
    if not isinstance(parent, fx.Node) or parent.op != "placeholder":
        return None
    same = len(parent.meta["example"]) == len(value)
    order = [entry.args[1] for entry in value] == list(range(len(value)))
    return parent if same and order and isinstance(parent.meta["example"], tuple) else None


def mapped(value: Any, function: Callable) -> Any:
    """A nested value with a function applied to every leaf."""
    if isinstance(value, Mapping):
        return {key: mapped(entry, function) for key, entry in value.items()}
    if isinstance(value, tuple | list) and not hasattr(value, "data"):
        entries = [mapped(entry, function) for entry in value]
        return tuple(entries) if isinstance(value, tuple) else entries
    return function(value)


def _holds_nodes(value: Any) -> bool:
    found: list[fx.Node] = []
    map_arg(value, found.append)
    return any(isinstance(node.meta["example"], torch.Tensor) for node in found)
