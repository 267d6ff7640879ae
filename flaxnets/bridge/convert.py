"""An NNX model's weights as a torch state_dict of NumPy arrays, and back.

Names follow the attributes of the modules, as in torch; `nnx.List`, `nnx.Dict` and
`nnx.Sequential` count or name their entries as torch's containers do.
"""

import collections
import difflib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

from flaxnets.bridge.rules import Leaf, TorchOnly, rule
from flaxnets.edge.message import LONGEST, MOST, printable, some

DEEPEST = 3  # modules around a model that a checkpoint's names may tell of


class BridgeError(ValueError):
    """Weights that do not fit a model, or a file that does not hold any; the message is one line.

    Attributes:
        findings: all that does not fit; the message names ten.
    """

    def __init__(self, message: str, findings: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


class Entry(NamedTuple):
    """One weight of a model under both its names."""

    path: tuple[str | int, ...]
    name: str
    variable: nnx.Variable
    leaf: Leaf

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """The shape of the weight in torch's layout; nothing is allocated."""
        flat = np.broadcast_to(np.False_, self.variable.shape)
        pattern = self.leaf.to_torch()
        return rearrange(flat, pattern).shape if pattern else flat.shape


def modules(model: nnx.Module) -> Iterator[tuple[tuple[str | int, ...], str, nnx.Module]]:
    """Every module inside a model and itself: Flax path, torch name, module, as defined."""
    yield from _modules(model, (), ())


def _modules(node: Any, path: tuple[str | int, ...], name: tuple[str, ...]) -> Iterator:
    if isinstance(node, nnx.List):
        children: Any = list(enumerate(node))
    elif isinstance(node, nnx.Module):
        yield path, ".".join(name), node
        children = [(key, value) for key, value in _attributes(node) if key[:1] != "_"]
    else:
        return
    for key, value in children:
        transparent = isinstance(node, nnx.Sequential) and key == "layers"
        yield from _modules(value, (*path, key), name if transparent else (*name, str(key)))


def _attributes(node: nnx.Module) -> list[tuple[str, Any]]:
    """A module's attributes as they were defined: `nnx.merge` sorts all but this record."""
    own = vars(node)
    order = dict.fromkeys([*getattr(node, "_pytree__nodes", ()), *own])
    return [(key, own[key]) for key in order if key in own]


def entries(model: nnx.Module) -> list[Entry]:
    """Every weight of a model, in the order in which it was defined.

    Raises:
        BridgeError: a layer without a rule holds weights of its own beside those of a rule.
    """
    found = []
    for path, prefix, module in modules(model):
        own = {key: value for key, value in _attributes(module) if _is_weight(value)}
        given = rule(type(module))
        if given is None:
            # A network's own bare parameters: torch's name and torch's layout.
            given = tuple(Leaf(key, key) for key in own)
        leaves = [leaf for leaf in given if isinstance(leaf, Leaf)]
        for key in own.keys() - {leaf.flax for leaf in leaves}:
            raise BridgeError(
                f"the rule of {type(module).__name__} does not name its weight {key!r}; "
                "register a rule for this class"
            )
        for leaf in leaves:
            if leaf.flax in own:
                name = _join(prefix, leaf.torch)
                found.append(Entry((*path, leaf.flax), name, own[leaf.flax], leaf))
    return found


def torch_only(model: nnx.Module) -> dict[str, np.ndarray]:
    """What torch holds of a model and Flax does not, as in a fresh torch model."""
    return {
        _join(prefix, entry.torch): entry.value
        for _, prefix, module in modules(model)
        for entry in rule(type(module)) or ()
        if isinstance(entry, TorchOnly)
    }


def tied(model: nnx.Module) -> dict[str, str]:
    """What torch holds under two names and Flax once: the copy's name and the weight's."""
    return {
        _join(prefix, copy): _join(prefix, weight)
        for _, prefix, module in modules(model)
        for copy, weight in getattr(module, "tied_weights", {}).items()
    }


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _is_weight(value: Any) -> bool:
    return isinstance(value, nnx.Variable) and not isinstance(value, nnx.RngState)


def state_dict(model: nnx.Module, values: Any = None) -> dict[str, np.ndarray]:
    """A model's weights under torch's names, in torch's layouts.

    A weight that the model shares (`tied_weights`, a class's mapping of the name of each copy to
    the name of its weight) stands under all its names, as in torch's `state_dict`; of `values`
    under its own alone, as in torch's `named_parameters`.

    Args:
        model: any NNX model whose layers the bridge has rules for.
        values: an `nnx.State` of the model's own paths (gradients, moments of an optimizer)
            to carry over in place of the weights; weights that it lacks are left out.

    Raises:
        BridgeError: a layer whose rule does not cover its weights.

    >>> from flaxnets import create
    >>> {k: v.shape for k, v in state_dict(create("feedforward")).items()}["linear1.weight"]
    (200, 100)
    """
    given = None if values is None else dict(nnx.to_flat_state(values))
    state = {} if given is not None else torch_only(model)
    for entry in entries(model):
        if given is None:
            value = entry.variable[...]
        elif entry.path in given:
            held = given[entry.path]
            value = held[...] if isinstance(held, nnx.Variable) else held
        else:
            continue
        array = _arrange(np.asarray(value), entry.leaf.to_torch())
        state[entry.name] = array.astype(entry.leaf.torch_dtype or array.dtype)
    if given is None:
        state |= {copy: state[weight] for copy, weight in tied(model).items()}
    return state


def load_state_dict(model: nnx.Module, state: Mapping[str, Any]) -> None:
    """Put weights with torch's names and layouts into a model, in place.

    Args:
        model: any NNX model whose layers the bridge has rules for.
        state: arrays by torch name; torch's own tensors will do. All of the model's weights
            and nothing else, each with the model's dtype. The copy of a shared weight is its
            equal to the last bit, or left out, as Hugging Face leaves it out of files.

    Raises:
        BridgeError: its `findings` are every missing and unexpected name, every wrong shape and
            dtype and every copy that differs from its weight; the model is then as it was.

    >>> from flaxnets import create
    >>> load_state_dict(create("mlp", seed=1), state_dict(create("mlp", seed=0)))
    """
    findings, shown, pairs = _fitted(model, state)
    raise_for("weights do not fit", findings, shown, ", or by flaxnets convert --verbose")
    with jax.enable_x64(True):  # else float64 weights would arrive as float32
        arranged = [(entry.variable, _to_flax(entry, array)) for entry, array in pairs]
        # Copied by NumPy: jnp.array compiles a program for every shape.
        placed = [(variable, jax.device_put(np.array(weight))) for variable, weight in arranged]
        for variable, weight in placed:
            variable.set_value(weight)


def weight_findings(model: nnx.Module, state: Mapping[str, Any]) -> list[str]:
    """All that `load_state_dict` would find wrong; the model stays as it is.

    >>> from flaxnets import create
    >>> weight_findings(create("linear_network"), {})
    ['missing W1', 'missing W2']
    """
    return _fitted(model, state)[0]


def raise_for(what: str, findings: list[str], shown: list[str], also: str = "") -> None:
    """A `BridgeError` of all findings that says the first ten of some, if there are any.

    >>> numbers = [str(i) for i in range(12)]
    >>> try:
    ...     raise_for("numbers", numbers, numbers)
    ... except BridgeError as error:
    ...     print(error)
    numbers: 0; 1; 2; 3; 4; 5; 6; 7; 8; 9 and 2 more (all in the error's `findings`)
    """
    if findings:
        hint = f" (all in the error's `findings`{also})" if len(findings) > MOST else ""
        raise BridgeError(f"{what}: {some(shown, '; ')}{hint}", findings)


def _fitted(
    model: nnx.Module, state: Mapping[str, Any]
) -> tuple[list[str], list[str], list[tuple[Entry, Any]]]:
    """What does not fit a model, what to say of it, and the arrays that do fit."""
    if not isinstance(state, Mapping):
        kind = type(state).__name__
        wrong = [f"a state_dict is a mapping of names to arrays, not of type {kind}"]
        return wrong, wrong, []
    given = {name: value for name, value in state.items() if isinstance(name, str)}
    wanted = {entry.name: entry for entry in entries(model)}
    constants = torch_only(model)
    known = wanted.keys() | constants.keys()
    findings = [
        f"a name of type {type(name).__name__}" for name in state if not isinstance(name, str)
    ]
    for copy, source in tied(model).items():
        if copy in given and source in given and not _same(given.pop(copy), given[source]):
            findings.append(f"{copy} differs from {source}, to which it is tied")
    for name in constants.keys() & given.keys():
        findings += _misfits(name, given[name], constants[name].shape, constants[name].dtype)
    pairs = [(entry, given[name]) for name, entry in wanted.items() if name in given]
    for entry, value in pairs:
        dtype = np.dtype(entry.leaf.torch_dtype or entry.variable.dtype)
        if misfits := _misfits(entry.name, value, entry.torch_shape, dtype):
            findings += misfits
        elif dtype != entry.variable.dtype:
            array = as_numpy(value)
            if not np.array_equal(array.astype(entry.variable.dtype).astype(dtype), array):
                findings.append(f"{entry.name} holds values that {entry.variable.dtype} does not")
    findings.sort()
    missing, unexpected = known - given.keys(), given.keys() - known
    pattern, renamed = _renamed(unexpected, missing, len(given))
    single = _strangers(unexpected - renamed.keys(), missing - {*renamed.values()})
    shown = [pattern, *findings, *single] if pattern else findings + single
    for theirs, ours in sorted(renamed.items()):
        single += [f"unexpected {printable(theirs)} (near {ours})", f"missing {ours}"]
    return findings + single, shown, pairs


def _to_flax(entry: Entry, value: Any) -> np.ndarray:
    return _arrange(as_numpy(value), entry.leaf.to_flax()).astype(entry.variable.dtype, copy=False)


def _strangers(unexpected: set[str], missing: set[str]) -> list[str]:
    """Names that are missing or unexpected, in turn."""
    findings = []
    lacking = sorted(missing)
    turns = itertools.zip_longest(lacking, sorted(unexpected))
    for place, (ours, theirs) in enumerate(turns):
        near = _nearest(theirs, lacking) if theirs and place < MOST else ""
        findings += [f"missing {ours}"] if ours else []
        findings += [f"unexpected {printable(theirs)}{near}"] if theirs is not None else []
    return findings


def _nearest(name: str, known: list[str]) -> str:
    """What it may have been meant to be, for the end of a finding.

    Of names that share parts, since to compare two letter by letter takes a millisecond.
    """
    if len(name) > LONGEST:
        return ""
    parts = {*name.split(".")}
    ranked = sorted(known, key=lambda one: (-len(parts & {*one.split(".")}), one))
    near = difflib.get_close_matches(name, ranked[:MOST], n=1)
    return f" (near {near[0]})" if near else ""


def _renamed(unexpected: set[str], missing: set[str], count: int) -> tuple[str, dict[str, str]]:
    """Which prefix most unexpected names have or lack, and those names without or with it."""
    counts: collections.Counter = collections.Counter()
    for sign, names, others in (
        ("have the unexpected prefix", unexpected, missing),
        ("lack the prefix", missing, unexpected),
    ):
        for name in names:
            parts = name.split(".", DEEPEST)
            for depth in range(1, len(parts)):
                if ".".join(parts[depth:]) in others:
                    counts[sign, ".".join(parts[:depth]) + "."] += 1
    if not counts:
        return "", {}
    ((sign, prefix), most), *_ = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    if most < 2 or 2 * most < len(unexpected):
        return "", {}
    has = sign.startswith("have")
    pairs = {name: name.removeprefix(prefix) if has else prefix + name for name in unexpected}
    renamed = {theirs: ours for theirs, ours in pairs.items() if ours in missing}
    who = f"all {count} names" if len(renamed) == count else f"{len(renamed)} of {count} names"
    return f"{who} {sign} '{printable(prefix)}'", renamed


def _misfits(name: str, value: Any, shape: tuple, dtype: np.dtype) -> list[str]:
    """What of an array, which stays where it is, is not as it should be."""
    if kind := _unlike(value):
        return [f"{name} is {kind}"]
    if tuple(value.shape) != shape:
        return [f"{name} has shape {printable(tuple(value.shape))}, not {shape}"]
    if (found := str(value.dtype).removeprefix("torch.")) != str(dtype):
        return [f"{name} has dtype {printable(found)}, not {dtype}"]
    return []


def _same(one: Any, other: Any) -> bool:
    """Whether two arrays are equal to the last bit, NaN included."""
    if any(map(_unlike, (one, other))) or tuple(one.shape) != tuple(other.shape):
        return False
    one, other = as_numpy(one), as_numpy(other)
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


def _arrange(array: np.ndarray, pattern: str | None) -> np.ndarray:
    return np.asarray(rearrange(array, pattern), order="C") if pattern else array


def in_dtype(model: nnx.Module, dtype: str) -> nnx.Module:
    """A copy of a model whose real weights have another dtype, and whose layers compute in it.

    A layer that fixes the dtype of its weights as its own (`nnx.Embed` does) goes along.

    >>> from flaxnets import create
    >>> str(in_dtype(create("linear_network"), "float64").W1.dtype)
    'float64'
    """
    graph, state = nnx.split(model)

    def cast(x: Any) -> Any:
        real = jnp.issubdtype(x.dtype, jnp.floating)
        if isinstance(x, jax.core.Tracer):
            return x.astype(dtype) if real else x
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.device_put(x, may_alias=False)
        array = np.asarray(x)  # not by a program for every shape
        return jax.device_put(array.astype(jnp.dtype(dtype)) if real else np.array(array))

    with jax.enable_x64(True):  # else float64 would become float32
        copy = nnx.merge(graph, jax.tree.map(cast, state))
    found: Any = nnx.iter_modules(copy)
    for _, module in found:
        own = getattr(module, "dtype", None)
        if own is not None and own == getattr(module, "param_dtype", None):
            module.dtype = jnp.dtype(dtype)
    return copy


def _unlike(value: Any) -> str:
    """What something is that no array of NumPy can hold; empty for all others."""
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return ""
    if not hasattr(value, "detach"):  # a torch tensor, whose package is not needed to say so
        return f"of type {type(value).__name__}, not an array"
    dtype = str(value.dtype).removeprefix("torch.")
    if value.is_nested:
        return "a nested tensor"
    if value.is_quantized:
        return f"a quantized tensor ({dtype})"
    if value.is_meta:
        return "a tensor on the device meta, without data"
    if str(value.layout) != "torch.strided":
        return f"a sparse tensor ({value.layout})"
    own = getattr(np.sctypeDict.get(dtype), "__module__", None) == "numpy"
    return "" if own or dtype == "bfloat16" else f"a tensor of dtype {dtype}, which NumPy lacks"


def as_numpy(value: Any) -> np.ndarray:
    """An array of NumPy, JAX or torch as NumPy's, with its dtype and values.

    Raises:
        BridgeError: a tensor of torch that NumPy has no array for: sparse, quantized, nested, on
            the device meta, of 8-bit floats.
    """
    if kind := _unlike(value):
        raise BridgeError(f"no array of NumPy: {kind}")
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return np.asarray(value)
    value = value.detach().cpu().resolve_conj().resolve_neg()
    if "bfloat16" in str(value.dtype):  # which torch cannot hand to NumPy itself
        return np.asarray(jax.dlpack.from_dlpack(value.contiguous()))
    return value.numpy()
