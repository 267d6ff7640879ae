"""The Flax twin of a user's torch module: translated, built, given its weights and checked."""

import contextlib
import copy
import hashlib
import inspect
import linecache
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from flaxnets import bridge, parity
from flaxnets.bridge.convert import as_numpy, entries
from flaxnets.data.drawn import draw
from flaxnets.specs import Input
from flaxnets.swap.twin.construction import Construction
from flaxnets.swap.twin.modules import Translator
from flaxnets.swap.twin.problems import TranslationError
from flaxnets.swap.twin.source import CONSTANTS, written
from flaxnets.training.randomness import drawn
from torch_ref.arrays import channels_first, tensor
from torch_ref.random import replay

IMAGES = {4: "bhwc", 5: "bdhwc"}  # of tensors of so many axes
IN_EVALUATION = ("forward", "gradients")


class Translation(NamedTuple):
    """The source of a twin.

    Attributes:
        source: a Python module.
        name: of the twin's class in it.
        constants: arrays that the source reads from a file beside it.
        noisy: whether the twin draws random numbers in evaluation, too.
        varies: whether training differs from evaluation.
    """

    source: str
    name: str
    constants: Mapping[str, np.ndarray]
    noisy: bool
    varies: bool


def flax_twin(module: torch.nn.Module, inputs: Sequence[Input | torch.Tensor]) -> nnx.Module:
    """The NNX twin of a torch module that is made of `torch.nn` layers and plain tensor code.

    The forward pass is traced by `torch.fx` with examples, in evaluation and in training mode, and
    written as NNX source, one class for each of the user's; that source is run, given the
    module's weights and compared with the module in float64: outputs, gradients, outputs in
    training mode with the same random numbers, and weights there and back. Attributes keep their
    names. Maps are channels last at the twin's edge, as everywhere in this library. What draws
    random numbers takes `rngs` when it is called; `nnx.view` switches between training and
    evaluation, and the twin starts in the mode that the module is in. `inspect.getsource` of
    its class shows what was written.

    Sizes stay free where the module hands them on; where Python needs a number (a loop over time)
    the example's is kept. Arguments that `inputs` leaves out have their defaults.

    Args:
        module: stays as it is.
        inputs: in the order of the forward's arguments: tensors in torch's layout, of which
            those of four and five axes are images, or descriptions.

    Raises:
        TranslationError: with every line that cannot be translated (what Python decides by the
            values of a tensor, an operation without an equivalent), or the check that failed.

    >>> module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten())
    >>> twin = flax_twin(module, [torch.ones(2, 1, 5, 5)])
    >>> twin(jnp.ones((3, 5, 5, 1))).shape
    (3, 18)
    """
    return checked(module, inputs)[0]


def checked(
    module: torch.nn.Module, inputs: Sequence[Input | torch.Tensor]
) -> tuple[nnx.Module, Translation]:
    """The twin and its source, see `flax_twin`."""
    translation = translate(module, inputs)
    twin = load(translation)
    carry(module, twin)
    _check(module, twin, inputs, translation)
    evaluation = not module.training
    views = {"deterministic": evaluation, "use_running_average": evaluation}
    return nnx.view(twin, **views, raise_if_not_found=False), translation


def translate(module: torch.nn.Module, inputs: Sequence[Input | torch.Tensor]) -> Translation:
    """The source of a module's twin; see `flax_twin`, which also checks it.

    >>> translate(torch.nn.Sequential(torch.nn.Tanh()), [torch.ones(2, 3)]).name
    'Model'
    """
    root = copy.deepcopy(module)
    signature = inspect.signature(type(root).forward)
    try:
        bound = signature.bind(root, *(example(given, _dtype_of(root)) for given in inputs))
    except TypeError as error:
        name = type(module).__name__
        raise TranslationError(f"{name}.forward does not take these inputs: {error}") from None
    described = [describe(given, index) for index, given in enumerate(inputs)]
    arguments = _named(signature, dict(list(bound.arguments.items())[1:]))
    layouts = [1 if "c" in each.axes else None for each in described]
    given: dict[str, Any] = dict(zip(arguments, layouts, strict=True))
    images = frozenset(len(each.axes) for each in described if "c" in each.axes)
    translator = Translator(root, images)
    translator.code(root, arguments, given)
    if translator.problems:
        name = type(module).__name__
        raise TranslationError(f"{name} cannot be translated", translator.problems)
    construction = Construction(translator)
    source, codes = written(construction), translator.codes.values()
    return Translation(
        source,
        construction.classes[-1].name,
        construction.constants,
        any(code.noisy for code in codes),
        "BatchNorm" in source or any(code.draws or code.modes for code in codes),
    )


def _named(signature: inspect.Signature, arguments: dict[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name, value in arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            named |= {f"{name}_{index}": entry for index, entry in enumerate(value)}
        else:
            named[name] = value
    return named


def describe(given: Input | torch.Tensor, index: int) -> Input:
    """An input as a description; a tensor of four or five axes is an image.

    >>> describe(torch.ones(2, 3, 8, 9), 0).shape
    (2, 8, 9, 3)
    """
    if isinstance(given, Input):
        return given
    axes = IMAGES.get(given.dim(), "btf"[: given.dim()])
    shape = tuple(given.shape)
    if "c" in axes:
        shape = (shape[0], *shape[2:], shape[1])
    return Input(name=str(index), shape=shape, axes=axes)


def example(given: Input | torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """An input in torch's layout, drawn where it is a description, real numbers in a dtype."""
    if isinstance(given, torch.Tensor):
        return given.detach().clone()
    rng = np.random.Generator(np.random.Philox(0))
    drawn = channels_first(tensor(draw(rng, given)), given.axes)
    return drawn.to(dtype) if drawn.is_floating_point() else drawn


def _dtype_of(module: torch.nn.Module) -> torch.dtype:
    real = (weight.dtype for weight in module.parameters() if weight.is_floating_point())
    return next(real, torch.get_default_dtype())


def load(translation: Translation) -> nnx.Module:
    """The model that a source describes; its weights are zeros until the bridge brings others."""
    digest = hashlib.sha256(translation.source.encode()).hexdigest()[:12]
    file = f"<twin {translation.name} {digest}>"
    lines = translation.source.splitlines(keepends=True)
    linecache.cache[file] = (len(translation.source), None, lines, file)
    made: Any = types.ModuleType(f"twin_{translation.name}_{digest}")
    made.__file__ = file
    made.CONSTANTS = translation.constants
    sys.modules[made.__name__] = made  # where `inspect.getsource` looks
    exec(compile(translation.source.replace(CONSTANTS, ""), file, "exec"), vars(made))
    cls = getattr(made, translation.name)
    takes = "rngs" in inspect.signature(cls.__init__).parameters
    constants: dict[tuple, np.ndarray] = {}

    def build() -> nnx.Module:
        model = cls(rngs=nnx.Rngs(0)) if takes else cls()
        leaves = nnx.to_flat_state(nnx.state(model))
        constants.update({path: leaf for path, leaf in leaves if isinstance(leaf, np.ndarray)})
        return model

    try:
        graph, state = nnx.split(nnx.eval_shape(build))  # no weight is drawn
    except ValueError as error:
        raise TranslationError(f"{translation.name} cannot be built: {error}") from error
    flat = {
        path: constants[path]
        if path in constants
        else jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype)), value)
        for path, value in nnx.to_flat_state(state)
    }
    return nnx.merge(graph, nnx.from_flat_state(flat))


def carry(module: torch.nn.Module, twin: nnx.Module) -> None:
    """The module's weights, in their dtypes."""
    state = {name: as_numpy(value) for name, value in module.state_dict().items()}
    with jax.enable_x64(True):
        for entry in entries(twin):
            given = state.get(entry.name)
            if given is not None and jnp.issubdtype(given.dtype, jnp.floating):
                zeros = np.zeros(entry.variable.shape, given.dtype)
                entry.variable.set_value(jax.device_put(zeros))
    bridge.load_state_dict(twin, state)


def _check(
    module: torch.nn.Module,
    twin: nnx.Module,
    inputs: Sequence[Input | torch.Tensor],
    translation: Translation,
) -> None:
    given = [each if isinstance(each, Input) else _array(each) for each in inputs]
    name = type(module).__name__
    others = ("forward_train", "round_trip") if translation.varies else ("round_trip",)
    rounds: list[tuple[nnx.Module, torch.nn.Module, tuple[str, ...]]]
    rounds = [(twin, module, (*IN_EVALUATION, *others))]
    if translation.noisy:
        pair = Seeded(twin), Replayed(module, twin, given)
        rounds = [(*pair, IN_EVALUATION), (twin, module, others)]
    try:
        with _default_dtype(torch.float64):  # JAX's default is float64 in float64 runs as well
            for one, other, checks in rounds:
                parity.check(one, other, given, checks, name=name).raise_if_failed()
    except (parity.ParityError, bridge.BridgeError) as error:
        raise TranslationError(f"the twin of {name} is not its equal: {error}") from error


def _array(given: torch.Tensor) -> np.ndarray:
    array = given.detach().cpu().numpy()
    return np.moveaxis(array, 1, -1) if given.dim() in IMAGES else array


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Seeded(nnx.Module):
    """A model that draws in evaluation, too, with the same numbers in every call."""

    def __init__(self, model: nnx.Module) -> None:
        self.model = model

    def __call__(self, *inputs: Any) -> Any:
        """What the model gives."""
        model: Any = self.model
        return model(*inputs, rngs=nnx.Rngs(jax.random.key(0)))


class Replayed(torch.nn.Module):
    """The torch side of `Seeded`, which draws what that draws."""

    def __init__(
        self, model: torch.nn.Module, twin: nnx.Module, inputs: Sequence[Input | np.ndarray]
    ) -> None:
        super().__init__()
        self.model = model
        seen = nnx.view(
            twin, deterministic=True, use_running_average=True, raise_if_not_found=False
        )
        pair = parity.Pair(seen, model, inputs)
        graph, state = nnx.split(seen)

        def forward(state: Any, inputs: Any) -> Any:
            model: Any = nnx.merge(graph, state, copy=True)
            return model(*inputs, rngs=nnx.Rngs(jax.random.key(0)))

        self.draws = drawn(jax.make_jaxpr(forward)(state, pair.flax_inputs("float32")).jaxpr)

    def forward(self, *inputs: torch.Tensor) -> Any:
        """What the model gives."""
        with replay(0, self.draws):
            return self.model(*inputs)
