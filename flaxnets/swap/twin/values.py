"""What goes through a user's forward while it is traced.

It stands for tensors and for what follows from their shapes and dtypes, and carries the value
that they have in an example.
"""

import functools
import operator
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

Tracer = Any  # of `flaxnets.swap.twin.trace`, which makes these
FINFO = torch.finfo  # which is another while a module is traced


class Value(fx.Proxy):
    """A tensor of the forward pass."""

    node: fx.Node
    tracer: Tracer

    def __init__(self, node: fx.Node, tracer: Tracer) -> None:
        super().__init__(node, tracer)
        tracer.values.add(weakref.ref(self))

    @property
    def example(self) -> Any:
        """The value in the example."""
        return self.node.meta["example"]

    def __getattr__(self, name: str) -> Any:
        example, tracer = self.example, self.tracer
        if name == "dtype":
            return Dtype(tracer.record("call_function", getattr, (self, name)))
        if name == "shape":
            return tracer.shape(self)
        if name == "data":
            return self.detach()
        found = getattr(example, name)  # an AttributeError is the user's
        if isinstance(found, torch.Tensor):  # T, mT
            return tracer.create_proxy("call_function", getattr, (self, name), {})
        return functools.partial(self._call, name) if callable(found) else found

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if name in ("size", "numel", "nelement"):
            if name == "size":
                shape = self.tracer.shape(self)
                dim = args[0] if args else kwargs.get("dim")
                return shape if dim is None else shape[dim]
            return functools.reduce(operator.mul, self.tracer.shape(self), 1)
        if name in ("dim", "ndimension"):
            return self.example.dim()
        return self.tracer.create_proxy("call_method", name, (self, *args), kwargs)

    def __iter__(self) -> Iterator[Any]:
        entry = operator.getitem
        return iter([entry(self, index) for index in range(self.example.shape[0])])

    def __len__(self) -> int:
        return len(self.example)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})

    def __contains__(self, value: Any) -> bool:
        return self.tracer.of_data(self, lambda example: value in example)

    def __bool__(self) -> bool:
        return self.tracer.of_data(self, bool)

    def __int__(self) -> int:
        return self.tracer.of_data(self, int)

    def __float__(self) -> float:
        return self.tracer.of_data(self, float)

    def __index__(self) -> int:
        return self.tracer.of_data(self, int)


def _in_place(method: str) -> Callable:
    """An operator such as +=, which in torch changes the tensor that it is applied to."""
    return lambda value, other: getattr(value, method)(other)


for _operator, _method in (
    ("iadd", "add_"),
    ("isub", "sub_"),
    ("imul", "mul_"),
    ("itruediv", "div_"),
    ("ifloordiv", "floor_divide_"),
    ("imod", "remainder_"),
    ("ipow", "pow_"),
    ("iand", "bitwise_and_"),
    ("ior", "bitwise_or_"),
    ("ixor", "bitwise_xor_"),
):
    setattr(Value, f"__{_operator}__", _in_place(_method))


class Size(int):
    """A number that follows from shapes: the example's to Python, symbolic in the graph."""

    node: fx.Node
    tracer: Tracer

    def __fx_create_arg__(self, tracer: fx.Tracer) -> fx.Node:
        return self.node


def _arithmetic(name: str, function: Callable, *, reflected: bool) -> Callable:
    def calculate(self: Size, other: Any) -> Any:
        if type(other) not in (int, Size):
            return getattr(int, name)(int(self), other)
        pair = (other, self) if reflected else (self, other)
        return self.tracer.create_proxy("call_function", function, pair, {})

    return calculate


for _name in ("add", "sub", "mul", "floordiv", "mod"):
    _function = getattr(operator, _name)
    setattr(Size, f"__{_name}__", _arithmetic(f"__{_name}__", _function, reflected=False))
    setattr(Size, f"__r{_name}__", _arithmetic(f"__r{_name}__", _function, reflected=True))


class Dtype:
    """The dtype of a tensor: the example's to Python, symbolic in the graph."""

    def __init__(self, node: fx.Node) -> None:
        self.node = node

    def __getattr__(self, name: str) -> Any:
        return getattr(self.node.meta["example"], name)

    def __eq__(self, other: object) -> bool:
        own = self.node.meta["example"]
        return own == (other.node.meta["example"] if isinstance(other, Dtype) else other)

    def __hash__(self) -> int:
        return hash(self.node.meta["example"])

    def __fx_create_arg__(self, tracer: fx.Tracer) -> fx.Node:
        return self.node


class Real(float):
    """A limit of a dtype, such as `torch.finfo(x.dtype).min`."""

    node: fx.Node

    def __fx_create_arg__(self, tracer: fx.Tracer) -> fx.Node:
        return self.node


class Limits:
    """`torch.finfo` of the dtype of a tensor."""

    def __init__(self, dtype: Dtype, tracer: Tracer) -> None:
        self._node = tracer.record("call_function", FINFO, (dtype,))
        self._tracer = tracer

    def __getattr__(self, name: str) -> Any:
        node = self._tracer.record("call_function", getattr, (self._node, name))
        limit = Real(node.meta["example"])
        limit.node = node
        return limit
