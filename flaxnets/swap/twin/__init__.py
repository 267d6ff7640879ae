"""The Flax twin of a user's torch module, as a model and as readable source."""

import copy
import hashlib
import linecache
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from flax import nnx

from flaxnets import bridge, parity
from flaxnets.data.drawn import draw
from flaxnets.specs import Input
from flaxnets.swap.twin.construction import Construction
from flaxnets.swap.twin.modules import Translator
from flaxnets.swap.twin.source import CONSTANTS, written
from flaxnets.swap.twin.trace import TranslationError
from torch_ref.arrays import channels_first, tensor

IMAGES = {4: "bhwc", 5: "bdhwc"}


class Translation(NamedTuple):
    """The source of a twin, and the constants that it reads."""

    source: str
    name: str
    rngs: bool
    draws: bool
    constants: Mapping[str, np.ndarray]


def translate(module: torch.nn.Module, inputs: Sequence[Input | torch.Tensor]) -> Translation:
    root = copy.deepcopy(module).requires_grad_(True)
    described = [describe(given, index) for index, given in enumerate(inputs)]
    examples = [example(given) for given in inputs]
    images = frozenset(len(each.axes) for each in described if "c" in each.axes)
    translator = Translator(root, images)
    import inspect
    signature = inspect.signature(type(root).forward)
    bound = signature.bind(root, *examples)
    arguments = dict(list(bound.arguments.items())[1:])
    given = {
        name: 1 if "c" in each.axes else None
        for (name, _), each in zip(arguments.items(), described, strict=True)
    }
    code = translator.code(root, arguments, given)
    if translator.problems:
        raise TranslationError(
            f"{type(module).__name__} cannot be translated: "
            + "; ".join(str(problem) for problem in translator.problems)
        )
    construction = Construction(translator)
    last = construction.classes[-1]
    return Translation(
        written(construction), last.name, last.rngs, code.draws, construction.constants
    )


def describe(given: Input | torch.Tensor, index: int) -> Input:
    if isinstance(given, Input):
        return given
    axes = IMAGES.get(given.dim(), "btf"[: given.dim()])
    shape = tuple(given.shape)
    if "c" in axes:
        shape = (shape[0], *shape[2:], shape[1])
    return Input(name=str(index), shape=shape, axes=axes)


def example(given: Input | torch.Tensor) -> torch.Tensor:
    if isinstance(given, torch.Tensor):
        return given.detach().clone()
    rng = np.random.Generator(np.random.Philox(0))
    return channels_first(tensor(draw(rng, given)), given.axes)


def load(translation: Translation) -> nnx.Module:
    digest = hashlib.sha256(translation.source.encode()).hexdigest()[:12]
    file = f"<twin {translation.name} {digest}>"
    text = translation.source
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    namespace: dict[str, Any] = {"__name__": f"twin_{digest}", "CONSTANTS": translation.constants}
    exec(compile(text.replace(CONSTANTS, ""), file, "exec"), namespace)
    cls = namespace[translation.name]
    return cls(rngs=nnx.Rngs(0)) if translation.rngs else cls()


def flax_twin(module, inputs):
    translation = translate(module, inputs)
    model = load(translation)
    bridge.load_state_dict(model, module.state_dict())
    model.translation = None
    return model
