"""The user's modules, one class of the twin for each: what a class holds and what it computes."""

import inspect
import re
import traceback
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from flaxnets.swap.twin import layers, trace
from flaxnets.swap.twin.body import Body
from flaxnets.swap.twin.calls import Code, View, mapped
from flaxnets.swap.twin.expressions import chosen
from flaxnets.swap.twin.functional import FUNCTIONS
from flaxnets.swap.twin.layouts import Layout
from flaxnets.swap.twin.operations import OPERATIONS
from flaxnets.swap.twin.problems import Problem, TranslationError
from flaxnets.swap.twin.rearrangements import REARRANGEMENTS
from flaxnets.swap.twin.trace import Tracer

TRANSLATIONS = {**OPERATIONS, **REARRANGEMENTS, **FUNCTIONS}
NO_DROPOUT = ", dropout=0.0, rngs=rngs"
# Draws in evaluation: those of layers are switched off there.
NOISE = re.compile(r"rngs\(\)|Dropout\w*\((?!0\.0\))[\d.]*\)\(|dropout=(?!0\.0,)[\d.]+, rngs")
OWN = __file__.rpartition("/")[0]


class Translator:
    """Translates a module and, from their calls, all modules inside it.

    Args:
        root: the user's module, which is changed; give a copy.
        images: how many axes those inputs have that hold channels last.
    """

    def __init__(self, root: nn.Module, images: frozenset[int]) -> None:
        self.root = root
        self.images = images
        self.codes: dict[int, Code] = {}
        self.problems: list[Problem] = []
        self.axes: dict[int, tuple[Layout, int]] = {}  # of layers along an axis, as held
        self.paths: dict[int, str] = {}
        for path, module in root.named_modules():
            self.paths.setdefault(id(module), path)
        self.owners = {id(tensor): name for name, tensor in root.named_parameters()}
        transient = {
            f"{path}.{name}".lstrip(".")
            for path, module in root.named_modules()
            for name in module._non_persistent_buffers_set
        }
        for name, tensor in root.named_buffers():
            if name not in transient:
                self.owners[id(tensor)] = name

    def is_user(self, module: nn.Module) -> bool:
        """Whether a class of the twin stands for a module."""
        own = not type(module).__module__.startswith("torch.")
        return module is self.root or own

    def is_whole(self, module: nn.Module) -> bool:
        """Whether a module of torch.nn is a layer of the twin with weights that are its own."""
        kind = layers.house(module)
        if kind is None:
            return False
        path = self.paths[id(module)]
        for tensor in [*module.parameters(), *module.buffers()]:
            if not self.owners.get(id(tensor), "").startswith(f"{path}." if path else ""):
                return False
        try:
            layers.built(module, kind, 0)
        except ValueError:
            return False
        return True

    def is_leaf(self, root: nn.Module, module: nn.Module) -> bool:
        """Whether a module stays whole in the forward pass of another."""
        path, prefix = self.paths.get(id(module)), self.paths[id(root)]
        if path is None or not path.startswith(f"{prefix}." if prefix else ""):
            return False
        if self.is_user(module) or type(module) is nn.Identity:
            return True
        if type(module) is nn.Sequential:
            return all(
                self.is_leaf(root, child) and self.paths[id(child)] == f"{path}.{name}".lstrip(".")
                for name, child in module.named_children()
            ) and len(module) == len(list(module.children()))
        return self.is_whole(module)

    def code(self, module: nn.Module, arguments: Mapping[str, Any], given: dict[str, Any]) -> Code:
        """The class for a module, from one of its calls.

        Args:
            module: of the user.
            arguments: values of the example by name, tensors among them.
            given: layouts of those that hold tensors.
        """
        if id(module) in self.codes:
            return self.codes[id(module)]
        base = layers.inherited(type(module))
        if layers.house(module):
            base = type(module)
        code = self.codes[id(module)] = Code(module, base, given)
        bodies = [self._body(code, arguments, training) for training in (False, True)]
        code.layout = bodies[0].layout
        lines, training = bodies[0].lines, bodies[1].lines
        merged = chosen(lines, training)
        if merged is None:
            code.lines, code.training, code.modes = lines, training, True
        else:
            code.lines = [line.replace(NO_DROPOUT, "") for line in merged]
            code.modes = any("self.deterministic" in line for line in merged)
        code.noisy = any(NOISE.search(line) for line in lines)
        code.draws = any("rngs" in line for line in [*code.lines, *(code.training or ())])
        return code

    def _body(self, code: Code, arguments: Mapping[str, Any], training: bool) -> Body:
        module = code.module.train(training)
        tracer = Tracer(code.base, lambda inner: self.is_leaf(module, inner))
        copies = mapped(arguments, lambda x: x.clone() if isinstance(x, torch.Tensor) else x)
        args, kwargs = _call_of(module, copies)
        try:
            graph = tracer.run(module, args, kwargs)
        except TranslationError:
            raise
        except Exception as error:
            raise TranslationError(_said(error, module, training)) from error
        names = list(tracer.parameters)
        for name in names:
            code.given.setdefault(name, None)
        outputs = self._root_output if module is self.root else lambda ndim, layout: layout
        view = View(self, code)
        body = Body(graph, code.given, view, TRANSLATIONS, outputs)
        for problem in [*tracer.problems, *body.problems]:
            if problem not in self.problems:
                self.problems.append(problem)
        return body

    def _root_output(self, ndim: int, layout: Layout) -> Layout:
        """Maps are channels last; all else is in torch's order."""
        return 1 if ndim in self.images else layout if ndim in (4, 5) else None


def _call_of(module: nn.Module, arguments: Mapping[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Arguments by name as those of a call."""
    args: list[Any] = []
    kwargs = dict(arguments)
    for name, parameter in list(inspect.signature(type(module).forward).parameters.items())[1:]:
        if parameter.kind is parameter.VAR_POSITIONAL:
            args += [kwargs.pop(key) for key in list(kwargs) if key.startswith(f"{name}_")]
        elif parameter.kind is parameter.POSITIONAL_ONLY and name in kwargs:
            args.append(kwargs.pop(name))
    return tuple(args), kwargs


def _said(error: Exception, module: nn.Module, training: bool) -> str:
    """What the user's code said, and where."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((OWN, *trace.ELSEWHERE))
    ]
    place = f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
    mode = "training" if training else "evaluation"
    first = str(error).strip().partition("\n")[0]
    return f"{place}{type(module).__name__} in {mode} raises {type(error).__name__}: {first}"
