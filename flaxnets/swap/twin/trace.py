"""A torch module's forward as a graph of `torch.fx`, whose proxies carry the values of an example.

torch.nn's layers and the user's own submodules stay whole. Sizes stay symbolic as long as they
are only handed on or calculated with; where Python needs a number (a loop, a comparison), it is
the example's.
"""

import builtins
import contextlib
import functools
import inspect
import operator
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import einops
import torch
from torch import fx
from torch.nn.utils import rnn

from flaxnets.swap.twin.problems import Problem
from flaxnets.swap.twin.values import FINFO, Dtype, Limits, Real, Size, Value

# What builds tensors from numbers alone, and so has no proxy among its arguments.
FACTORIES = (
    *("zeros", "ones", "full", "empty", "arange", "linspace", "eye"),
    *("rand", "randn", "tensor", "finfo"),
)
# What is found by name in the globals of the user's modules.
WRAPPED: tuple[Callable, ...] = (
    *(einops.rearrange, einops.reduce, einops.repeat, einops.einsum),
    *(rnn.pack_padded_sequence, rnn.pad_packed_sequence),
)
NOT_USERS = frozenset(["torch", "einops", "jax", "jaxlib", "flax", "numpy", "builtins"])
# Numbers that depend on what a tensor holds, not only on its shape and dtype.
OF_DATA = frozenset(
    ["item", "tolist", "numpy", "equal", "allclose", "is_nonzero", "nonzero", "unique"]
)
ELSEWHERE = (
    *(str(Path(inspect.getfile(package)).parent) for package in (torch, einops)),
    contextlib.__file__,
)


def super_call(*args: Any, **kwargs: Any) -> None:
    """Stands in a graph for the call of torch's own forward by a class derived from its layer."""


class Tracer(fx.Tracer):
    """Records one call of one module.

    Args:
        inherited: the layer of torch.nn that the module's class derives from, if any.
        is_leaf: whether a submodule of the root stays whole.
    """

    def __init__(
        self,
        inherited: type[torch.nn.Module] | None,
        is_leaf: Callable[[torch.nn.Module], bool],
    ) -> None:
        super().__init__()
        self.proxy_buffer_attributes = True
        self.inherited = inherited
        self.leaf = is_leaf
        self.problems: list[Problem] = []
        self.values: set[weakref.ref[Value]] = set()
        self.parameters: dict[str, Any] = {}  # names of the call's arguments: their nodes
        self._evaluating = False
        self._call: tuple[tuple, dict] = ((), {})

    def run(self, root: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> fx.Graph:
        """The graph of a call; `args` and `kwargs` hold tensors where proxies go."""
        self._call = (args, kwargs)
        with torch.no_grad(), self._patched(root):
            return self.trace(root)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        """The call itself, with proxies for its tensors."""
        bound = inspect.signature(root_fn).bind(self.root, *self._call[0], **self._call[1])
        self.parameters = {}
        for name, value in list(bound.arguments.items())[1:]:
            kind = bound.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                named = {f"{name}_{i}": entry for i, entry in enumerate(value)}
                bound.arguments[name] = tuple(self._argument(*each) for each in named.items())
            elif kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {k: self._argument(k, entry) for k, entry in value.items()}
            else:
                bound.arguments[name] = self._argument(name, value)

        def call() -> Any:
            def returns(frame: Any, event: str, value: Any) -> None:
                if event == "return" and frame.f_code is code:
                    self._see_names([frame])

            code, before = inspect.unwrap(root_fn).__code__, sys.getprofile()
            sys.setprofile(returns)  # the last names are known when the forward returns
            try:
                return root_fn(*bound.args, **bound.kwargs)
            finally:
                sys.setprofile(before)

        return call, []

    def _argument(self, name: str, value: Any) -> Any:
        if not any(isinstance(leaf, torch.Tensor | Size) for leaf in _leaves(value)):
            return value
        node = self.create_node("placeholder", name, (), {}, name)
        node.meta |= {"example": value, "var": name, "where": []}
        self.parameters[name] = node
        return self.wrapped(node, value)

    # Recording

    def record(self, kind: str, target: Any, args: tuple, kwargs: dict | None = None) -> fx.Node:
        """A node with the value that it has in the example."""
        frames = _user_frames()
        self._see_names(frames)
        example = self._evaluate(kind, target, args, kwargs or {})
        node = self.create_node(kind, target, self.create_arg(args), self.create_arg(kwargs or {}))
        node.meta |= {
            "example": example,
            "where": [(f.f_code.co_filename, f.f_lineno) for f in frames],
        }
        return node

    def create_proxy(
        self,
        kind: str,
        target: Any,
        args: tuple,
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any = None,
        proxy_factory_fn: Any = None,
    ) -> Any:
        """What the user's code goes on with: proxies in the place of tensors and sizes."""
        called = target if isinstance(target, str) else getattr(target, "__name__", "")
        if kind != "call_module" and called in OF_DATA:
            self.refuse(f"{called} needs the values of a tensor")
            return self._evaluate(kind, target, args, kwargs)
        versions = [(v, _version(v.example)) for v in _leaves((args, kwargs)) if _is(v, Value)]
        node = self.record(kind, target, args, kwargs)
        changed = [value for value, version in versions if _version(value.example) != version]
        for value in changed:
            if kind == "call_module" and not getattr(self.submodule(target), "inplace", False):
                value.node.meta["changed"] = called
            else:
                self._check_views(value)
                value.node = node
        result = self.wrapped(node, node.meta["example"])
        own = [value for value in changed if value.node is node]
        return own[0] if own and isinstance(result, Value) else result

    def _check_views(self, changed: Value) -> None:
        storage = changed.example.untyped_storage().data_ptr()
        for reference in list(self.values):
            other = reference()
            if other is None:
                self.values.discard(reference)
            elif (
                other.node is not changed.node
                and isinstance(other.example, torch.Tensor)
                and other.example.untyped_storage().data_ptr() == storage
            ):
                self.refuse("a tensor is changed in place of which another is a view")
                return

    def wrapped(self, node: fx.Node, example: Any) -> Any:
        """An example's structure with proxies in the place of tensors and sizes."""
        if isinstance(example, torch.Tensor | rnn.PackedSequence):
            return Value(node, self)
        if isinstance(example, int) and not isinstance(example, bool):
            size = Size(example)
            size.node, size.tracer = node, self
            return size
        if isinstance(example, Mapping):
            return {key: self._item(node, key, entry) for key, entry in example.items()}
        if isinstance(example, tuple | list):
            entries = [self._item(node, index, entry) for index, entry in enumerate(example)]
            kind: Any = type(example)
            return kind(*entries) if hasattr(kind, "_make") else kind(entries)
        return example

    def _item(self, node: fx.Node, key: Any, example: Any) -> Any:
        item = self.create_node("call_function", operator.getitem, (node, key), {})
        item.meta |= {"example": example, "where": node.meta["where"]}
        return self.wrapped(item, example)

    def shape(self, value: Value) -> torch.Size:
        """A tensor's shape as symbolic sizes."""
        sizes = []
        for dim, size in enumerate(value.example.shape):
            node = self.create_node("call_method", "size", (value.node, dim), {})
            node.meta |= {"example": size, "where": []}
            sizes.append(self.wrapped(node, size))
        return torch.Size(sizes)

    def create_arg(self, a: Any) -> Any:
        """Arguments as nodes."""
        if isinstance(a, Value) and (by := a.node.meta.get("changed")):
            self.refuse(f"{by} changed this tensor in place")
        if isinstance(a, torch.Size):  # which holds numbers only
            a = tuple(a)
        if isinstance(a, fx.Node):
            return a
        if isinstance(a, Size | Dtype | Real):
            return a.node
        arg: Any = super().create_arg(a)
        if isinstance(a, torch.Tensor):  # a constant, for which fx makes the node itself
            arg.meta.setdefault("example", a)
            arg.meta.setdefault("where", [])
        return arg

    def refuse(self, reason: str) -> None:
        """Note that the line which the user's code is in cannot be translated."""
        frames = _user_frames()
        if frames:
            frame = frames[-1]
            problem = Problem(frame.f_code.co_filename, frame.f_lineno, reason)
            if problem not in self.problems:
                self.problems.append(problem)

    def of_data(self, value: Value, convert: Callable) -> Any:
        """What Python wants to know of a tensor's values: noted, and answered by the example."""
        self.refuse("Python needs the values of a tensor")
        return convert(value.example)

    # Modules

    def submodule(self, path: str) -> torch.nn.Module:
        """A module inside the root by its path."""
        return self.root.get_submodule(path) if isinstance(path, str) else None

    def call_module(self, m: torch.nn.Module, forward: Any, args: tuple, kwargs: dict) -> Any:
        """Leaves are recorded, all others traced through."""
        if self._evaluating:
            return forward(*args, **kwargs)
        if m._forward_hooks or m._forward_pre_hooks:
            self.refuse(f"{type(m).__name__} has hooks")
        if self.leaf(m):
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)
        return forward(*args, **kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict) -> Any:
        """Parameters and buffers are proxies in the user's code."""
        if self._evaluating:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def _evaluate(self, kind: str, target: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        args, kwargs = _examples(args), _examples(kwargs)
        before, self._evaluating = self._evaluating, True
        try:
            if kind == "get_attr":
                return operator.attrgetter(target)(self.root)
            if kind == "call_module":
                return self.submodule(target)(*args, **kwargs)
            if kind == "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            if target is operator.setitem:
                args[0][args[1]] = args[2]
                return args[0]
            if target is super_call:
                return self._inherited_forward(self.root, *args, **kwargs)
            return target(*args, **kwargs)
        finally:
            self._evaluating = before

    @contextlib.contextmanager
    def _patched(self, root: torch.nn.Module) -> Iterator[None]:
        """While open, what has no proxy to announce itself by is recorded too."""
        originals: list[tuple[Any, str, Any]] = []

        def patch(owner: Any, name: str, new: Any) -> None:
            originals.append((owner, name, vars(owner).get(name, patch)))
            setattr(owner, name, new)

        try:
            for name in FACTORIES:
                patch(torch, name, self._recording(getattr(torch, name)))
            for module, name, value in _bindings():
                patch(module, name, self._recording(value) if value else _itself)
            kinds = {kind for module in root.modules() for kind in type(module).__mro__}
            for home in {kind.__module__ for kind in kinds if not _is_foreign(kind)}:
                if (module := sys.modules.get(home)) and "len" not in vars(module):
                    patch(module, "len", _length)
            for function in WRAPPED[-2:]:
                patch(rnn, function.__name__, self._recording(function))
            if self.inherited:
                self._inherited_forward = self.inherited.forward

                def forward(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
                    if self._evaluating or module is not root:
                        return self._inherited_forward(module, *args, **kwargs)
                    return self.create_proxy("call_function", super_call, args, kwargs)

                functools.update_wrapper(forward, self._inherited_forward)
                patch(self.inherited, "forward", forward)
            yield
        finally:
            for owner, name, value in reversed(originals):
                if value is patch:
                    delattr(owner, name)
                else:
                    setattr(owner, name, value)

    def _recording(self, function: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._evaluating:
                return function(*args, **kwargs)
            if function is FINFO:
                symbolic = args and isinstance(args[0], Dtype)
                return Limits(args[0], self) if symbolic else function(*args, **kwargs)
            return self.create_proxy("call_function", function, args, kwargs)

        return call

    def _see_names(self, frames: Sequence[Any]) -> None:
        """Which of the user's variables hold which values, the caller's before the callee's."""
        for frame in frames:
            for name, value in frame.f_locals.items():
                if isinstance(value, Value) and name.isidentifier() and name.strip("_"):
                    value.node.meta.setdefault("var", name)


def _bindings() -> list[tuple[Any, str, Callable | None]]:
    """Where modules of users bind functions of `WRAPPED` to names of their own."""
    wanted: dict[int, Callable | None] = {id(function): function for function in WRAPPED}
    wanted[id(torch.autograd.Variable)] = None  # since torch 0.4 the tensor itself
    return [
        (module, name, wanted[id(value)])
        for home, module in list(sys.modules.items())
        if home == "einops" or home.partition(".")[0] not in NOT_USERS
        if hasattr(module, "__dict__")
        for name, value in list(vars(module).items())
        if id(value) in wanted
    ]


def _is_foreign(kind: type) -> bool:
    """Whether a class is not of a user's own."""
    return kind.__module__.partition(".")[0] in NOT_USERS


def _itself(data: Any, *_: Any, **__: Any) -> Any:
    return data


def _length(value: Any) -> int:
    return value.shape[0] if isinstance(value, Value) else builtins.len(value)


def _user_frames() -> list[Any]:
    """The frames of the user's code, the outermost first, inside the call that is traced."""
    frames: list[Any] = []
    frame: Any = sys._getframe(1)
    own = str(Path(__file__).parent)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "run" and code.co_filename == __file__:
            break
        if not code.co_filename.startswith((own, *ELSEWHERE)):
            frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind)


def _version(example: Any) -> int:
    return example._version if isinstance(example, torch.Tensor) else 0


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, torch.Tensor | Value | rnn.PackedSequence):
        return [value]
    if isinstance(value, Mapping):
        return [leaf for entry in value.values() for leaf in _leaves(entry)]
    if isinstance(value, tuple | list):
        return [leaf for entry in value for leaf in _leaves(entry)]
    return [value]


def _examples(value: Any) -> Any:
    """Arguments with the example's values in the place of proxies."""
    if isinstance(value, Value | Dtype):
        return value.node.meta["example"]
    if isinstance(value, fx.Node):
        return value.meta["example"]
    if isinstance(value, Size):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, dict):
        return {key: _examples(entry) for key, entry in value.items()}
    if isinstance(value, slice):
        return slice(*map(_examples, (value.start, value.stop, value.step)))
    if isinstance(value, rnn.PackedSequence):
        return value
    if isinstance(value, tuple | list):
        entries = [_examples(entry) for entry in value]
        kind: Any = type(value)
        return kind(*entries) if hasattr(kind, "_make") else kind(entries)
    return value
