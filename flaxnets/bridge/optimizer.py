"""The state of an optimizer as torch.optim's `state_dict()` of NumPy arrays, and back.

A state is known by its fields: `step`, and slots under torch's names, each a tree whose leaves
are in the order of the model's `nnx.Param`s; `flaxnets.training.optimizers` makes such states.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from flaxnets.bridge.convert import (
    BridgeError,
    Entry,
    _arrange,
    _misfits,
    _unlike,
    as_numpy,
    entries,
    raise_for,
)
from flaxnets.edge.message import printable, some

# Numbers that Flax holds once and torch once for each parameter.
NUMBERS = ("step", "mu_product")


def optimizer_state_dict(
    model: nnx.Module, opt_state: Any, optimizer: Callable[..., Any], **options: Any
) -> dict[str, Any]:
    """An optimizer's state in the format of torch.optim's `state_dict()`.

    Parameters are numbered in the order of torch's `model.parameters()`, which is that in which
    both models define them. Before the first step torch holds nothing, and neither does this.

    Args:
        model: any NNX model whose layers the bridge has rules for.
        opt_state: of an optimizer that moves all of the model's `nnx.Param`s; it may be a part
            of an `optax.chain`'s state.
        optimizer: the function that made the optimizer, such as `optimizers.adam`: its
            arguments, by torch's names, are the hyper-parameters.
        **options: what it was called with; a schedule becomes its number at this step.

    Raises:
        BridgeError: no such state, one of another model, or one of other options.

    >>> from flaxnets import create
    >>> from flaxnets.training import optimizers
    >>> model = create("linear_network")
    >>> params = nnx.state(model, nnx.Param)
    >>> _, state = optimizers.sgd(momentum=0.9).update(
    ...     params, optimizers.sgd(momentum=0.9).init(params)
    ... )
    >>> found = optimizer_state_dict(model, state, optimizers.sgd, momentum=0.9)
    >>> list(found["state"][0]), found["param_groups"][0]["params"]
    (['momentum_buffer'], [0, 1])
    """
    held, step = _held(opt_state), steps_taken(opt_state)
    _require_same_kind(held, jax.eval_shape(optimizer(**options).init, [0.0]))
    state = optimizer_slots(model, opt_state)
    arguments = inspect.signature(optimizer).bind(**options)
    arguments.apply_defaults()
    group = {name: _settled(value, step) for name, value in arguments.arguments.items()}
    return {"state": state, "param_groups": [{**group, "params": list(range(len(_places(model))))}]}


def optimizer_slots(model: nnx.Module, opt_state: Any) -> dict[int, dict[str, np.ndarray]]:
    """What an optimizer remembers of each parameter: the "state" of `optimizer_state_dict`.

    Raises:
        BridgeError: no such state, or one of another model.

    >>> from flaxnets import create
    >>> from flaxnets.training import optimizers
    >>> model = create("linear_network")
    >>> optimizer_slots(model, optimizers.adagrad().init(nnx.state(model, nnx.Param)))[0].keys()
    dict_keys(['step', 'sum'])
    """
    held, places = _held(opt_state), _places(model)
    slots, step = _slots(held, places), steps_taken(opt_state)
    state: dict[int, dict[str, np.ndarray]] = {}
    for index, (entry, place) in enumerate(places):
        own = {"step": np.array(step, np.float32)} if _counts(held) else {}
        if "mu_product" in held._fields:
            own["mu_product"] = np.asarray(_leaf(held.mu_product))
        for name, leaves in slots.items():
            own[name] = _arrange(np.asarray(leaves[place]), entry.leaf.to_torch())
        if own and (step or not _lazy(held)):
            state[index] = own
    return state


def parameter_names(model: nnx.Module) -> list[str]:
    """Torch's names of a model's parameters, in the order of `model.parameters()` there.

    >>> from flaxnets import create
    >>> parameter_names(create("linear_network"))
    ['W1', 'W2']
    """
    return [entry.name for entry, _ in _places(model)]


def steps_taken(opt_state: Any) -> int:
    """How many steps led to an optimizer's state.

    >>> from flaxnets.training import optimizers
    >>> steps_taken(optimizers.sgd().init([jax.numpy.ones(1)]))
    0
    """
    return int(_number(_held(opt_state).step))


def load_optimizer_state_dict(
    model: nnx.Module, opt_state: Any, state: Mapping[str, Any], step: int | None = None
) -> Any:
    """An optimizer state that goes on where torch's stopped.

    Args:
        model: any NNX model whose layers the bridge has rules for; it is only looked at.
        opt_state: of the same optimizer with the same options; it stays as it is.
        state: torch.optim's `state_dict()`, its tensors as they are or as NumPy arrays. All
            slots and nothing else, each with its parameter's shape and dtype. The
            hyper-parameters in it are not read.
        step: steps taken, for a schedule of an SGD, which does not count them in torch; by
            default those of `opt_state`.

    Raises:
        BridgeError: its `findings` are everything that is missing, unexpected or of a wrong shape
            or dtype.

    >>> from flaxnets import create
    >>> from flaxnets.training import optimizers
    >>> model = create("linear_network")
    >>> state = optimizers.adam().init(nnx.state(model, nnx.Param))
    >>> torchs = optimizer_state_dict(model, state, optimizers.adam)
    >>> int(load_optimizer_state_dict(model, state, torchs).step)
    0
    """
    held, places = _held(opt_state), _places(model)
    slots, (given, groups) = _slots(held, places), _parts(state)
    findings = _group_findings(groups, [entry.name for entry, _ in places])
    if step is not None and _counts(held):
        findings.append(f"step {step} is asked for, but this state counts its own; leave it out")
    begun = bool(given) or not _lazy(held)
    if begun:
        findings += _state_findings(held, slots, places, given)
    findings.sort()
    raise_for("optimizer state does not fit", findings, findings)
    taken = int(_number(held.step)) if step is None else step
    ready: dict[str, list[Any]] = {name: list(leaves) for name, leaves in slots.items()}
    numbers: dict[str, Any] = {}
    if begun:
        for index, (entry, place) in enumerate(places):
            for name in slots:
                ready[name][place] = _arrange(as_numpy(given[index][name]), entry.leaf.to_flax())
        numbers = {name: given[0][name] for name in _numbers(held)}
        # An SGD with a buffer has taken its first step, which dampens nothing.
        taken = int(_told(numbers["step"])) if _counts(held) else max(taken, 1)
    elif slots:
        ready = {name: [np.zeros_like(leaf) for leaf in leaves] for name, leaves in slots.items()}
        numbers, taken = {"mu_product": np.ones((), np.float32)}, 0
    if "mu_product" in held._fields:
        product = numbers["mu_product"]
        array = np.float32(product) if isinstance(product, float) else as_numpy(product)
        ready["mu_product"] = [array.reshape(())]
    ready["step"] = [np.int32(taken)]
    with jax.enable_x64(True):  # else float64 slots would arrive as float32
        trees = {
            name: jax.tree.unflatten(
                jax.tree.structure(getattr(held, name)),
                [jax.device_put(np.array(leaf)) for leaf in leaves],
            )
            for name, leaves in ready.items()
        }
    after = held._replace(**trees)
    return jax.tree.map(lambda x: after if _is_held(x) else x, opt_state, is_leaf=_is_held)


def _is_held(node: Any) -> bool:
    return "step" in getattr(node, "_fields", ())


def _held(opt_state: Any) -> Any:
    """The one state with torch's names inside of an optax state."""
    found = [x for x in jax.tree.leaves(opt_state, is_leaf=_is_held) if _is_held(x)]
    if len(found) != 1:
        raise BridgeError(
            f"an optimizer state with {len(found)} parts that have torch's names; give one that "
            "flaxnets.training.optimizers made, of one phase"
        )
    return found[0]


def _places(model: nnx.Module) -> list[tuple[Entry, int]]:
    """Every parameter in torch's order, with its place among the leaves of a slot."""
    paths, _ = jax.tree.flatten_with_path(
        nnx.state(model, nnx.Param), is_leaf=lambda x: isinstance(x, nnx.Variable)
    )
    places = {tuple(key.key for key in path): place for place, (path, _) in enumerate(paths)}
    return [(entry, places[entry.path]) for entry in entries(model) if entry.path in places]


def _slots(held: Any, places: list[tuple[Entry, int]]) -> dict[str, list[jax.Array]]:
    slots = {
        name: jax.tree.leaves(value)
        for name, value in held._asdict().items()
        if name not in NUMBERS and value is not None
    }
    for name, leaves in slots.items():
        if len(leaves) != len(places):
            raise BridgeError(
                f"the optimizer state has {len(leaves)} of {name} and the model "
                f"{len(places)} parameters; give the part of the model that it moves"
            )
    return slots


def _counts(held: Any) -> bool:
    """Whether torch counts the steps of this optimizer: all do but SGD."""
    return held._fields != ("step", "momentum_buffer")


def _lazy(held: Any) -> bool:
    """Whether torch makes the slots at the first step: all do but Adagrad."""
    return "sum" not in held._fields


def _numbers(held: Any) -> list[str]:
    return [name for name in NUMBERS if name in held._fields and _counts(held)]


def _leaf(value: Any) -> Any:
    (leaf,) = jax.tree.leaves(value)
    return leaf


def _number(value: Any) -> float:
    return float(_leaf(value))


def _settled(value: Any, step: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_settled(part, step) for part in value)
    return float(value(step)) if callable(value) else value


def _require_same_kind(held: Any, made: Any) -> None:
    made = _held(made)
    has, wants = ({k for k, v in x._asdict().items() if v is not None} for x in (held, made))
    if has != wants:
        raise BridgeError(
            f"the optimizer state holds {', '.join(sorted(has))}, but these options make "
            f"{', '.join(sorted(wants))}"
        )


def _parts(state: Any) -> tuple[Mapping[int, Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The two parts of torch's format, as it nests them.

    Raises:
        BridgeError: what torch.optim's `state_dict()` never is.
    """
    given, groups = (
        state.get(part) if isinstance(state, Mapping) else None
        for part in ("state", "param_groups")
    )
    if (
        not isinstance(given, Mapping)
        or not all(isinstance(own, Mapping) for own in given.values())
        or not isinstance(groups, list | tuple)
        or not all(isinstance(group, Mapping) for group in groups)
    ):
        raise BridgeError(
            "no optimizer state: torch's is {'state': {0: {...}, ...}, 'param_groups': [{...}]}"
        )
    return given, list(groups)


def _group_findings(groups: list[Mapping[str, Any]], names: list[str]) -> list[str]:
    if len(groups) != 1:
        return [f"{len(groups)} param_groups, not 1"]
    (group,) = groups
    numbers: Any = group.get("params")
    given = group.get("param_names", names)
    for what, own in (("parameters", numbers), ("param_names", given)):
        if not isinstance(own, list | tuple):
            return [f"{what} are of type {type(own).__name__}, not a list"]
        if len(own) != len(names):
            return [f"{len(own)} {what}, not {len(names)}"]
    if any(not _is_index(one) or one != place for place, one in enumerate(numbers)):
        return [f"parameters are not numbered from 0 to {len(names) - 1}, but {some(numbers)}"]
    pairs = zip(given, names, strict=True)
    return [
        f"{printable(theirs)} in the place of {ours}"
        for theirs, ours in pairs
        if not isinstance(theirs, str) or theirs != ours
    ]


def _is_index(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _told(value: Any) -> float:
    """The number that a number or an array of one is; NaN for all else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**1023 else np.nan
    if _unlike(value):
        return np.nan
    array = as_numpy(value)
    real = array.dtype.kind in "iuf" or array.dtype.name == "bfloat16"
    return float(array.reshape(())) if real and array.size == 1 else np.nan


def _state_findings(
    held: Any,
    slots: Mapping[str, list[jax.Array]],
    places: list[tuple[Entry, int]],
    given: Mapping[int, Mapping[str, Any]],
) -> list[str]:
    known = {index: entry.name for index, (entry, _) in enumerate(places)}
    findings = [
        f"unexpected parameter {printable(repr(index))}"
        for index in given
        if not _is_index(index) or index not in known
    ]
    wanted = {*slots, *_numbers(held)}
    for index, (entry, place) in enumerate(places):
        own = given.get(index, {})
        findings += [f"missing {name} of {entry.name}" for name in wanted - own.keys()]
        findings += [
            f"unexpected {printable(name)} of {entry.name}" for name in own.keys() - wanted
        ]
        for name in slots.keys() & own.keys():
            target, label = slots[name][place], f"{name} of {entry.name}"
            shape = _arrange(np.empty(target.shape, np.bool_), entry.leaf.to_torch()).shape
            findings += _misfits(label, own[name], shape, target.dtype)
    for name in _numbers(held):
        values = {_told(own[name]) for own in given.values() if name in own}
        if np.nan in values:  # which `_told` makes of what is none
            findings.append(f"{name} is no number")
        elif len(values) > 1:
            found = some(f"{value:g}" for value in sorted(values))
            findings.append(f"{name} differs between parameters: {found}")
        if name == "step":
            counts = [value for value in values if 0 <= value < 2**31 and value.is_integer()]
            findings += [f"step {value} is not a count" for value in values - {*counts, np.nan}]
    return findings
