"""The graph of one forward pass as the statements of a `__call__`.

A value that the user's code gives a name keeps it; one that has none and is used once stands
where it is used. Names are used again as the user's code does, once the older value is dead.
"""

import builtins
import keyword
import operator
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import fx
from torch.fx.node import map_arg
from torch.nn.utils import rnn

from flaxnets import layers as house_layers
from flaxnets.swap.twin import layouts
from flaxnets.swap.twin.expressions import ATOM, Expr, literal
from flaxnets.swap.twin.layouts import Layout
from flaxnets.swap.twin.problems import Problem
from flaxnets.swap.twin.trace import super_call

LONGEST = 64  # characters of an expression that stands inside another
MOST = 8  # entries of a tuple that get a name each
RESERVED = frozenset(
    [
        *("self", "rngs", "jax", "jnp", "nnx", "np", "layers", "bridge", "reduce", "repeat"),
        *("einsum", "rearrange", "CONSTANTS", *house_layers.__all__, *keyword.kwlist),
        *dir(builtins),
    ]
)
DTYPES = {
    torch.float16: "jnp.float16",
    torch.bfloat16: "jnp.bfloat16",
    torch.float32: "jnp.float32",
    torch.float64: "float",
    torch.int64: "int",
    torch.int32: "jnp.int32",
    torch.int16: "jnp.int16",
    torch.int8: "jnp.int8",
    torch.uint8: "jnp.uint8",
    torch.bool: "bool",
}
IGNORED = ("device", "inplace", "out", "requires_grad", "layout", "pin_memory", "non_blocking")
RANDOM = ("dropout", "rand", "bernoulli")


class UntranslatableError(Exception):
    """An operation that has no translation; the message says which and why."""


class Modules(Protocol):
    """What a body asks about the modules that its forward calls."""

    def parameter(self, path: str) -> Expr:
        """The text of a parameter, buffer or constant."""

    def call(self, body: "Body", node: fx.Node) -> Expr:
        """The text of a submodule's call."""

    def inherited_call(self, body: "Body", node: fx.Node) -> Expr:
        """The text of the call of the layer that the class derives from."""


class Body:
    """The statements of a forward pass.

    Args:
        graph: of the forward pass.
        given: layouts of the arguments by name, nested as the arguments are.
        modules: knows the submodules.
        operations: the translations of torch's functions, by name.
        outputs: the layout of an output, from its number of axes and the one that it has.

    Attributes:
        lines: the statements.
        layout: of what is returned, nested as it is.
        problems: what has no translation.
    """

    def __init__(
        self,
        graph: fx.Graph,
        given: Mapping[str, Any],
        modules: Modules,
        operations: Mapping[str, Callable],
        outputs: Callable[[int, Layout], Layout],
    ) -> None:
        self.lines: list[str] = []
        self.layout: Any = None
        self.problems: list[Problem] = []
        self.packed: dict[fx.Node, tuple[fx.Node, bool]] = {}  # lengths, whether batch first
        self._given = given
        self._modules = modules
        self._operations = operations
        self._outputs = outputs
        self._exprs: dict[fx.Node, Expr] = {}
        self._reads: set[str] = set()  # by the statement that is being written
        self._draws = False  # whether it draws
        self._pending: list[fx.Node] = []  # draws, and is not yet written
        nodes = _used(graph)
        uses = {node: _arguments(node) for node in nodes}
        self._last = dict.fromkeys(nodes, -1)
        self._count = dict.fromkeys(nodes, 0)
        for position, node in enumerate(nodes):
            for argument in uses[node]:
                self._last[argument] = position
                self._count[argument] += 1
        for self._position, node in enumerate(nodes):
            if node not in self._exprs:
                self._reads, self._draws = set(), False
                try:
                    self._visit(node)
                except UntranslatableError as error:
                    self._refuse(node, str(error))

    def _refuse(self, node: fx.Node, reason: str) -> None:
        file, line = (node.meta["where"] or [("<unknown>", 0)])[-1]
        problem = Problem(file, line, reason)
        if problem not in self.problems:
            self.problems.append(problem)
        self._exprs[node] = Expr("None")

    def _visit(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            name = str(node.target)
            self._exprs[node] = Expr(name, self._given[name], names=frozenset([name]))
        elif node.op == "output":
            text, self.layout = self._returned(node.args[0])
            self._flush()
            self.lines.append(f"return {text}")
        elif node.op == "get_attr":
            self._settle(node, self._modules.parameter(str(node.target)))
        elif node.op == "call_module":
            self._settle(node, self._modules.call(self, node))
        elif node.target is super_call:
            self._settle(node, self._modules.inherited_call(self, node))
        elif (
            node.target is operator.getitem
            and self.example(node.args[0]) is not None
            and (not isinstance(self.example(node.args[0]), torch.Tensor))
        ):
            self._settle(node, self._entry(node))
        else:
            self._settle(node, self.operation(node))

    def _entry(self, node: fx.Node) -> Expr:
        parent: Any = self.expr(node.args[0])
        index: Any = node.args[1]
        layout = parent.layout[index] if isinstance(parent.layout, tuple | dict) else parent.layout
        return Expr(f"{parent.text}[{literal(index).text}]", layout)

    def operation(self, node: fx.Node) -> Expr | tuple[Expr, ...]:
        """The text of an operation of the table."""
        target: Any = node.target
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        name = name.strip("_")
        handler = self._operations.get(name)
        if handler is None:
            raise UntranslatableError(f"{name} has no translation")
        args, kwargs = list(node.args), dict(node.kwargs)
        if "input" in kwargs:
            args.insert(0, kwargs.pop("input"))
        for other, usual in (("axis", "dim"), ("keepdims", "keepdim")):
            if other in kwargs:
                kwargs[usual] = kwargs.pop(other)
        for ignored in IGNORED:
            kwargs.pop(ignored, None)
        try:
            return handler(self, *args, **kwargs)
        except (TypeError, ValueError) as error:
            raise UntranslatableError(f"{name} with these arguments: {error}") from error

    # What the translations of operations ask for

    def expr(self, arg: Any) -> Expr:
        """An argument as it is held."""
        if isinstance(arg, torch.dtype):
            return Expr(DTYPES[arg])
        if isinstance(arg, slice):
            ends = [arg.start, arg.stop, *([] if arg.step in (None, 1) else [arg.step])]
            return Expr(sliced(["" if end is None else self.expr(end).text for end in ends]))
        if isinstance(arg, tuple | list):
            inner = ", ".join(self.expr(entry).text for entry in arg)
            if isinstance(arg, list):
                return Expr(f"[{inner}]")
            return Expr(f"({inner},)" if len(arg) == 1 else f"({inner})")
        if isinstance(arg, torch.device):
            return Expr("None")
        if not isinstance(arg, fx.Node):
            return literal(arg)
        expr = self._exprs[arg]
        self._reads |= expr.names
        if arg in self._pending:
            self._pending.remove(arg)
            self._draws = True
        return expr

    def held(self, arg: Any, layout: Layout) -> Expr:
        """An argument in a layout."""
        expr = self.expr(arg)
        if not isinstance(self.example(arg), torch.Tensor):
            return expr
        ndim = self.ndim(arg)
        pattern = layouts.pattern(ndim, expr.layout, layout)
        if pattern is None:
            return Expr(expr.text, layouts.settled(layout, ndim), expr.rank)
        return Expr(f'rearrange({expr.text}, "{pattern}")', layouts.settled(layout, ndim))

    def torch(self, arg: Any, rank: int = ATOM) -> str:
        """The text of an argument, or of a list of them, in torch's order of axes."""
        if isinstance(arg, tuple | list):
            inner = ", ".join(self.torch(entry, 0) for entry in arg)
            if isinstance(arg, list):
                return f"[{inner}]"
            return f"({inner},)" if len(arg) == 1 else f"({inner})"
        return self.held(arg, None).within(rank)

    def variable(self, arg: Any, layout: Layout = None) -> str:
        """The name of an argument in a layout, for what reads it several times."""
        draws = self._draws
        expr = self.held(arg, layout)
        if expr.text.replace(".", "").isidentifier():
            return expr.text
        if not isinstance(arg, fx.Node) or not isinstance(self.example(arg), torch.Tensor):
            return expr.within(ATOM)
        self._draws = draws
        own = layouts.settled(layout, self.ndim(arg)) == self.layout_of(arg)
        name = self._write(self._base(arg), expr.text, during=True)
        if own:
            self._exprs[arg] = Expr(name, expr.layout, names=frozenset([name]))
        self._reads.add(name)
        return name

    def temporary(self, base: str, text: str) -> str:
        """A name for a text, for what reads it several times."""
        name = self._write(base, text, during=True)
        self._reads.add(name)
        self._draws = False
        return name

    def layout_of(self, arg: Any) -> Layout:
        """The layout of an argument."""
        expr = self._exprs.get(arg) if isinstance(arg, fx.Node) else None
        return None if expr is None else layouts.settled(expr.layout, self.ndim(arg))

    def ndim(self, arg: Any) -> int:
        """How many axes an argument has; 0 for numbers."""
        example = self.example(arg)
        return example.dim() if isinstance(example, torch.Tensor) else 0

    def axis(self, arg: Any, dim: int) -> int:
        """Where an axis of an argument is held."""
        return layouts.axis(dim, self.ndim(arg), self.layout_of(arg))

    def example(self, arg: Any) -> Any:
        """The value of an argument in the example."""
        return arg.meta["example"] if isinstance(arg, fx.Node) else arg

    def draw(self) -> None:
        """Say that what is translated draws random numbers or changes a state."""
        self._draws = True

    def adopt(self, node: fx.Node, expr: Expr, *, last: bool) -> None:
        """Take up a node that is part of the one that is translated, with its text."""
        if not last:
            name = self._write(self._base(node), expr.text, during=True)
            expr = Expr(name, expr.layout, names=frozenset([name]))
            self._draws = False
        self._last[node] = self._position
        self._count[node] = 1
        self._exprs[node] = expr

    # Statements

    def _settle(self, node: fx.Node, found: Expr | tuple[Expr, ...]) -> None:
        """Give a value a name, or keep its text for the place where it is used."""
        if isinstance(found, tuple):  # entries that are written one by one
            reads, draws = self._reads, self._draws
            self._exprs[node] = Expr("None")
            for user in [user for user in node.users if self._count.get(user)]:
                self._reads, self._draws = set(reads), draws
                index: Any = user.args[1]
                self._settle(user, found[index])
            return
        expr = Expr(found.text, found.layout, found.rank, frozenset(self._reads), self._draws)
        example = node.meta["example"]
        if expr.draws:
            self._flush()
        if self._count[node] == 0:
            if expr.draws or node.op == "call_module":
                self.lines.append(expr.text)
            return
        several = isinstance(example, tuple | list) and not isinstance(example, rnn.PackedSequence)
        if several and node.op != "placeholder":
            self._unpack(node, expr)
            return
        plain = expr.text.replace(".", "").isidentifier()
        number = not isinstance(example, torch.Tensor | rnn.PackedSequence)
        parameter = node.op == "get_attr" and "(" not in expr.text
        entry = expr.text.replace("[", "").replace("]", "").isidentifier()
        short = len(expr.text) <= LONGEST or any(user.op == "output" for user in node.users)
        once = self._count[node] == 1 and short and "var" not in node.meta
        if plain or number or parameter or entry or once:
            self._exprs[node] = expr
            if expr.draws:
                self._pending.append(node)
        else:
            name = self._write(self._base(node), expr.text)
            self._exprs[node] = Expr(name, expr.layout, names=frozenset([name]))

    def _unpack(self, node: fx.Node, expr: Expr) -> None:
        """One statement that names every entry of a tuple that is used."""

        def targets(parent: fx.Node, example: Any, layout: Any) -> str:
            items = {
                user.args[1]: user
                for user in parent.users
                if user.target is operator.getitem and self._count.get(user)
            }
            parts = []
            for index, entry in enumerate(example):
                inner = layout[index] if isinstance(layout, tuple) else layout
                if index not in items:
                    parts.append("_")
                elif isinstance(entry, tuple) and not isinstance(entry, rnn.PackedSequence):
                    parts.append(f"({targets(items[index], entry, inner)})")
                else:
                    name = self._free(self._base(items[index]), during=False)
                    self._exprs[items[index]] = Expr(name, inner, names=frozenset([name]))
                    parts.append(name)
                if index in items and items[index] not in self._exprs:
                    self._exprs[items[index]] = Expr("None")  # its own entries have names
            return ", ".join(parts) + ("," if len(parts) == 1 else "")

        example = node.meta["example"]
        whole = any(u.target is not operator.getitem for u in node.users if u in self._count)
        self._flush()
        if whole or len(example) > MOST:
            name = self._write(self._base(node), expr.text)
            self._exprs[node] = Expr(name, expr.layout, names=frozenset([name]))
        else:
            self._exprs[node] = Expr("None")
            self.lines.append(f"{targets(node, example, expr.layout)} = {expr.text}")

    def _write(self, base: str, text: str, *, during: bool = False) -> str:
        self._flush()
        name = self._free(base, during=during)
        self.lines.append(f"{name} = {text}")
        return name

    def _flush(self) -> None:
        """What draws and is not yet written comes before what is written next."""
        pending, self._pending = self._pending, []
        for node in pending:
            expr = self._exprs[node]
            name = self._free(self._base(node), during=True)
            self.lines.append(f"{name} = {expr.text}")
            self._exprs[node] = Expr(name, expr.layout, names=frozenset([name]))

    def _base(self, node: fx.Node) -> str:
        name = node.meta.get("var")
        if name is None and node.op == "call_module":
            parts = [part for part in str(node.target).split(".") if not part.isdigit()]
            name = parts[-1] if parts else "x"
        if name is None and node.target is operator.getitem:
            name = "x"
        name = (name or node.name.rstrip("_0123456789")).lstrip("_") or "x"
        return f"{name}_" if name in RESERVED else name

    def _free(self, base: str, *, during: bool) -> str:
        """A name whose older value is dead, after the statement or `during` it."""
        limit = self._position + (not during)
        taken = {
            name
            for node, expr in self._exprs.items()
            if self._last[node] >= limit
            for name in expr.names
        }
        if during:  # what the statement has read so far, temporaries among it
            taken |= self._reads
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        return name

    def _returned(self, value: Any) -> tuple[str, Any]:
        """What is returned as text, and its layouts."""
        if isinstance(value, dict):
            both = {key: self._returned(entry) for key, entry in value.items()}
            inner = ", ".join(f"{literal(key).text}: {text}" for key, (text, _) in both.items())
            return "{" + inner + "}", {key: layout for key, (_, layout) in both.items()}
        if isinstance(value, tuple | list):
            pairs = [self._returned(entry) for entry in value]
            texts = [
                f"({text})" if isinstance(entry, tuple) else text
                for (text, _), entry in zip(pairs, value, strict=True)
            ]
            inner = ", ".join(texts) + ("," if len(pairs) == 1 else "")
            inner = inner if isinstance(value, tuple) else f"[{inner.rstrip(',')}]"
            return inner, tuple(layout for _, layout in pairs)
        if not isinstance(self.example(value), torch.Tensor):
            return self.expr(value).text, None
        layout = self._outputs(self.ndim(value), self.layout_of(value))
        expr = self.held(value, layout)
        return expr.text, expr.layout


def _arguments(node: fx.Node) -> list[fx.Node]:
    """The nodes among a node's arguments, each as often as it stands there."""
    found: list[fx.Node] = []
    map_arg((node.args, node.kwargs), found.append)
    return found


def _used(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that the result depends on, and those that draw or change something."""
    wanted: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        effect = node.op in ("placeholder", "output", "call_module") or node.target is super_call
        draws = any(kind in str(getattr(node.target, "__name__", node.target)) for kind in RANDOM)
        if node in wanted or effect or draws:
            wanted.add(node)
            wanted.update(_arguments(node))
    return [node for node in graph.nodes if node in wanted]


def sliced(parts: list[str]) -> str:
    """A slice as ruff writes it: with spaces about what is more than a name or a number.

    >>> sliced(["", "n"]), sliced(["", "x.shape[1]"]), sliced(["a + 1", "n"])
    (':n', ': x.shape[1]', 'a + 1 : n')
    """
    if all(part.lstrip("-").isalnum() or not part for part in parts):
        return ":".join(parts)
    return " : ".join(parts).strip().replace(" :  : ", " :: ")
