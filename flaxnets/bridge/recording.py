"""Watching every call of a model's submodules, which NNX has no hooks for."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import nnx

from flaxnets.bridge.convert import modules

Report = Callable[[str, nnx.Module, tuple, dict, Any], None]


@contextlib.contextmanager
def recorded(model: nnx.Module, report: Report) -> Iterator[None]:
    """While open, every call of a module inside the model is reported as it ends.

    Nothing is compiled meanwhile, so that a call inside `lax.scan` is reported at every step.

    Args:
        model: the model; calls of other models' modules go unseen.
        report: gets the module's torch name ("" for the model itself), the module, its
            arguments, its keyword arguments and its output.

    >>> from flaxnets import create
    >>> import jax.numpy as jnp
    >>> model, seen = create("feedforward"), []
    >>> with recorded(model, lambda name, *call: seen.append(name)):
    ...     _ = model(jnp.ones((1, 100)))
    >>> seen
    ['linear1', 'activation', 'linear2', 'softmax', '']
    """
    names = {id(module): name for _, name, module in modules(model)}
    kinds: set[Any] = {type(module) for _, _, module in modules(model) if callable(module)}
    own = {kind: vars(kind).get("__call__") for kind in kinds}
    inside: list[int] = []

    def wrap(original):
        @functools.wraps(original)
        def call(self, *args, **kwargs):
            if id(self) in inside:  # a subclass that calls its parent's
                return original(self, *args, **kwargs)
            inside.append(id(self))
            try:
                output = original(self, *args, **kwargs)
            finally:
                inside.pop()
            if id(self) in names:
                report(names[id(self)], self, args, kwargs, output)
            return output

        return call

    wrapped = {kind: wrap(kind.__call__) for kind in kinds}
    for kind, call in wrapped.items():
        kind.__call__ = call
    try:
        with jax.disable_jit():
            yield
    finally:
        for kind, original in own.items():
            if original is None:
                del kind.__call__
            else:
                kind.__call__ = original
