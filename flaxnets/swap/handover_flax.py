"""The neutral form of an NNX model and its optax states; see `flaxnets.swap.handover`."""

import inspect
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from flaxnets import bridge
from flaxnets.bridge.convert import weight_findings
from flaxnets.bridge.optimizer import (
    _counts,
    _held,
    _is_held,
    _settled,
    optimizer_slots,
    parameter_names,
    steps_taken,
)
from flaxnets.edge.message import printable
from flaxnets.swap.handover import (
    COMPUTED,
    Handover,
    HandoverError,
    OptimizerState,
    json_of,
    kind_findings,
    number_findings,
    option_findings,
    part_findings,
    plateau_findings,
    plateau_of,
    raise_for,
    rates_of,
    step_findings,
)
from flaxnets.training import optimizers
from flaxnets.training.schedules import PlateauState
from flaxnets.training.update_rules import AdamState, SGDState

SMALL = 1e-3  # the norm of gradients that are tried
SAME_RULE = 2e-4  # of the largest update; optax computes 1 - 0.999**t in float32

# Of optax's own optimizers those that compute what torch's compute.
OPTAX = (optax.ScaleByAdamState, optax.TraceState, optax.ScaleByScheduleState)


def capture(
    model: nnx.Module,
    states: Mapping[str, Any],
    step: int,
    options: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, np.ndarray], dict[str, OptimizerState]]:
    """Weights and optimizers in the neutral form.

    Args:
        model: any NNX model whose layers the bridge has rules for.
        states: of optax, or `nnx.Optimizer`s, by the part of the model that each moves.
        step: how many were taken, which not every state of optax knows.
        options: what each optimizer was made with, by torch's names, where that is known.

    Raises:
        HandoverError: a state without torch's names.

    >>> from flaxnets import create
    >>> from flaxnets.training import optimizers
    >>> model = create("linear_network")
    >>> state = optimizers.adagrad().init(nnx.state(model, nnx.Param))
    >>> _, found = capture(model, {"": state}, 0, {"": {"lr": 0.1}})
    >>> found[""].name, sorted(found[""].slots)[:2]
    ('adagrad', ['W1.step', 'W1.sum'])
    """
    found = {}
    for part, given in states.items():
        own, state = _part(model, part), _named(_state(given), step)
        try:
            slots, taken = optimizer_slots(own, state), steps_taken(state)
        except bridge.BridgeError as error:
            raise HandoverError(str(error)) from None
        names = [_join(part, name) for name in parameter_names(own)]
        found[part] = OptimizerState(
            name=_kind(state),
            step=taken,
            scheduled=taken,
            slots={
                f"{names[index]}.{slot}": value
                for index, of_one in slots.items()
                for slot, value in of_one.items()
            },
            groups=_groups(options.get(part) or {}, names, taken),
            plateau=_plateau(state),
        )
    return bridge.state_dict(model), found


def restore(
    model: nnx.Module,
    states: Mapping[str, Any],
    found: Handover,
    options: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Put a neutral form into a model, in place; the optimizers that go on.

    An `nnx.Optimizer` is changed in place as well.

    Raises:
        HandoverError: with all that does not fit; nothing is then changed.
    """
    findings = weight_findings(model, found.weights)
    findings += step_findings(found.step) + part_findings(found, states)
    after = {}
    for part in states.keys() & found.optimizers.keys():
        own, told, before = _part(model, part), found.optimizers[part], _state(states[part])
        state = _named(before, 0)
        wrong = number_findings(told)
        try:
            wrong += kind_findings(_kind(state), told)
        except bridge.BridgeError as error:  # no state that is known here
            findings.append(str(error))
            continue
        names = [_join(part, name) for name in parameter_names(own)]
        given = _numbers(options.get(part) or {}, 0)
        findings += _group_findings(json_of(given), told, names)
        shown = _injected(state)
        if shown and told.groups:
            findings += option_findings(shown, told.groups[0], COMPUTED)
        wrong += _plateau_findings(state, told)
        if not wrong:
            ready, wrong = _loaded(own, names, state, told)
        if not wrong:
            after[part] = _renamed(before, ready)
            if isinstance(states[part], nnx.Optimizer) and not findings:
                loaded = nnx.clone(model)
                bridge.load_state_dict(loaded, found.weights)
                params = nnx.state(_part(loaded, part), nnx.Param)
                wrong = _rule_findings(states[part].tx, after[part], ready, params, told)
        findings += wrong
    raise_for(findings)
    step = jnp.uint32(found.step)
    bridge.load_state_dict(model, found.weights)
    for part, given in states.items():
        if isinstance(given, nnx.Optimizer):
            given.opt_state = nnx.data(after[part])
            given.step.set_value(step)
            after[part] = given
    return after


def unseen(
    states: Mapping[str, Any], found: Handover, options: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Of optimizers whose hyper-parameters cannot be compared, what these have to be.

    Args:
        states: as in `restore`.
        found: the neutral form.
        options: as in `restore`.
    """
    said = []
    for part in states.keys() & found.optimizers.keys():
        (group, *_) = found.optimizers[part].groups or [{}]
        shown = options.get(part) or _injected(states[part])
        if "lr" in group and not shown and not isinstance(states[part], nnx.Optimizer):
            wanted = ", ".join(
                f"{name} {printable(value)}"
                for name, value in sorted(group.items())
                if name not in ("names", *COMPUTED)
            )
            where = f" of {part}" if part else ""
            said.append(
                f"the optax state{where} does not show its hyper-parameters, which have to be "
                f"{wanted}; give an nnx.Optimizer, or options"
            )
    return said


def _group_findings(
    options: Mapping[str, Any], told: OptimizerState, names: list[str]
) -> list[str]:
    """Hyper-parameters that differ from these, or between groups, of which optax knows none."""
    if not told.groups:
        return []
    first, *others = told.groups
    differ = {
        name
        for other in others
        for name, value in other.items()
        if name not in ("names", *COMPUTED) and value != first.get(name)
    }
    strangers = {name for group in told.groups for name in group["names"]} - {*names}
    return [
        *option_findings(options, first),
        *(f"the {len(told.groups)} param_groups differ in {name}" for name in differ),
        *(f"unexpected {name} in param_groups" for name in strangers),
    ]


def _injected(state: Any) -> dict[str, Any]:
    """Hyper-parameters that `optax.inject_hyperparams` keeps in a state, by torch's names."""

    def has_them(node: Any) -> bool:
        return "hyperparams" in getattr(node, "_fields", ())

    found = [x for x in jax.tree.leaves(state, is_leaf=has_them) if has_them(x)]
    shown: dict[str, Any] = {}
    for node in found:
        for name, value in node.hyperparams.items():
            array = np.asarray(value)  # 0.01 in float32 is 0.01, not 0.00999999977
            shown[name] = float(str(array)) if array.dtype.kind == "f" else array.item()
    betas = (shown.pop("b1", None), shown.pop("b2", None))
    rate = {"lr": shown.pop("learning_rate")} if "learning_rate" in shown else {}
    return shown | rate | ({} if None in betas else {"betas": betas})


def _rule_findings(
    tx: optax.GradientTransformation, state: Any, named: Any, params: Any, told: OptimizerState
) -> list[str]:
    """Hyper-parameters that differ, which an optax transformation shows by its steps alone.

    Two steps of it are compared with two of the rule that the handover names.

    Args:
        tx: what goes on.
        state: of `tx`.
        named: the same with torch's names.
        params: that it moves, as an `nnx.State`.
        told: the handover.
    """
    make = optimizers.BY_NAME.get(told.name)
    group = told.groups[0] if told.groups else {}
    if make is None or told.plateau is not None:
        return []
    defaults = {n: x.default for n, x in inspect.signature(make).parameters.items()}
    if not group.keys() >= defaults.keys():  # as a script of Flax may leave some out
        return []
    known = {name: group[name] for name in sorted(defaults)}
    said = ", ".join(f"{name} {printable(value)}" for name, value in known.items())
    if any(not _is_like(value, defaults[name]) for name, value in known.items()):
        return [f"{said} are no hyper-parameters of {told.name}"]
    try:
        rule = make(**{name: _number_of(value) for name, value in known.items()})
    except ValueError as error:
        return [str(error)]
    with jax.enable_x64(True):
        state, held, params = map(_sample, (state, _held(named), params))
        begun = jax.tree.map(
            lambda node: held if _is_held(node) else node, rule.init(params), is_leaf=_is_held
        )
        wanted = _steps(rule, begun, params)
        try:
            taken = _steps(tx, state, params)
        except Exception:  # one that asks for more, or `optax.MultiSteps`, which fixes dtypes
            taken = []
    if not taken:
        line = "the optimizer's hyper-parameters cannot be tried out; they have to be"
        warnings.warn(f"{line} {said}", stacklevel=4)
        return []
    (one, then), (other, later) = map(_flat, wanted), map(_flat, taken)
    # A schedule changes the rate of the second step, which is a factor of all of it.
    with np.errstate(all="ignore"):
        factor = np.vdot(then, later) / max(np.vdot(then, then), np.finfo(np.float64).tiny)
        pairs = ((one, other), (factor * then, later))
        same = all(np.max(np.abs(x - y)) <= SAME_RULE * np.max(np.abs(x)) for x, y in pairs)
    if same:
        return []
    return [f"the optimizer takes other steps than {told.name} with {said}"]


def _is_like(value: Any, default: Any) -> bool:
    """Whether a hyper-parameter from a file is of the kind of a default: a flag or numbers."""
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, tuple):
        return (
            isinstance(value, list)
            and len(value) == len(default)
            and all(map(_is_like, value, default))
        )
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


def _number_of(value: Any) -> Any:
    """A flag, a real number, or a tuple of them; JSON's integers may be larger than an int64."""
    if isinstance(value, list):
        return tuple(map(float, value))
    return value if isinstance(value, bool) else float(value)


def _sample(tree: Any) -> Any:
    """The first two entries along each axis, in float64, without the `nnx.Variable`s.

    A rule treats all entries alike, and few shapes are soon compiled.
    """

    def cut(x: Any) -> Any:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x
        array = np.asarray(x)[(slice(2),) * x.ndim]
        real = jnp.issubdtype(x.dtype, jnp.floating)
        return jax.device_put(array.astype(np.float64) if real else np.array(array))

    return jax.tree.map(cut, nnx.as_pure(tree))


def _flat(arrays: list[Any]) -> np.ndarray:
    return np.concatenate([np.ravel(array) for array in arrays])


def _steps(tx: optax.GradientTransformation, state: Any, params: Any) -> list[list[Any]]:
    """Two updates by gradients so small that no clipping changes them."""
    rng = np.random.default_rng(0)
    size = sum(x.size for x in jax.tree.leaves(params))
    gradients = [
        jax.tree.map(lambda x: rng.standard_normal(x.shape) * (SMALL / size**0.5), params)
        for _ in range(2)
    ]

    update, found = optax.with_extra_args_support(tx).update, []
    for grads in gradients:
        updates, state = update(grads, state, params, value=1.0)
        found.append(jax.tree.leaves(updates))
    return found


def _plateau_findings(state: Any, told: OptimizerState) -> list[str]:
    """A ReduceLROnPlateau on one side only, or one that optax has no place for."""
    found = _plateau_state(state)
    if wrong := plateau_findings(found is not None, told):
        return wrong
    if found is None:
        return []
    rates, best = {*rates_of(told)}, (told.plateau or {})["best"] or 0
    if len(rates) > 1:
        return [f"the plateau has {len(rates)} rates, not 1"]
    dtype = jax.tree.leaves(found.lr)[0].dtype
    return [
        f"{value:g} of the plateau is more than {dtype} holds"
        for value in (best, *rates)
        if abs(value) > float(jnp.finfo(dtype).max)
    ]


def _loaded(
    own: nnx.Module, names: list[str], state: Any, told: OptimizerState
) -> tuple[Any, list[str]]:
    """An optax state that goes on from a neutral one, and what is wrong with that."""
    places = {name: index for index, name in enumerate(names)}
    slots: dict[int, dict[str, np.ndarray]] = {}
    findings = []
    for label, value in told.slots.items():
        name, _, slot = label.rpartition(".")
        if name in places:
            own_type = np.float32 if slot == "mu_product" else value.dtype  # a torch's may be wider
            slots.setdefault(places[name], {})[slot] = value.astype(own_type)
        else:
            findings.append(f"unexpected {slot} of {name}")
    torchs = {"state": slots, "param_groups": [{"params": list(range(len(names)))}]}
    counted = any("step" in of_one for of_one in slots.values())
    step = None if counted or _counts(_held(state)) else told.step
    try:
        state = bridge.load_optimizer_state_dict(own, state, torchs, step)
    except bridge.BridgeError as error:
        return state, [*findings, str(error).removeprefix("optimizer state does not fit: ")]
    if steps_taken(state) not in (told.step, np.float32(told.step)):  # as slots hold it
        findings.append(f"no slots after {told.step} steps")
    return _on_plateau(state, told), findings


def _on_plateau(state: Any, told: OptimizerState) -> Any:
    """A state whose ReduceLROnPlateau, if there is one, remembers what it did."""
    if told.plateau is None:
        return state
    known = {**told.plateau, "lr": rates_of(told)[0]}

    def remember(node: Any) -> Any:
        if not isinstance(node, PlateauState):
            return node
        own = {"best": node.best, **{k: v for k, v in known.items() if v is not None}}
        with jax.enable_x64(True):  # else numbers in float64 would become float32
            return PlateauState(
                *(
                    jax.tree.map(lambda old, new=own[name]: jnp.asarray(new, old.dtype), field)
                    for name, field in node._asdict().items()
                )
            )

    return jax.tree.map(remember, state, is_leaf=lambda x: isinstance(x, PlateauState))


def _part(model: nnx.Module, part: str) -> nnx.Module:
    for name in filter(None, part.split(".")):
        model = getattr(model, name)
    return model


def _state(given: Any) -> Any:
    return given.opt_state if isinstance(given, nnx.Optimizer) else given


def _join(part: str, name: str) -> str:
    return f"{part}.{name}" if part else name


def _kind(state: Any) -> str:
    """Torch's name of what a state is of; AdamW's and Adam's are one."""
    return type(_held(state)).__name__.removesuffix("State").lower()


def _named(state: Any, step: int) -> Any:
    """A state of optax with torch's names."""

    def name(node: Any) -> Any:
        if isinstance(node, optax.ScaleByAdamState):
            return AdamState(node.count, node.mu, node.nu)
        if isinstance(node, optax.TraceState):
            return SGDState(jnp.int32(step), node.trace)
        return node

    return jax.tree.map(name, state, is_leaf=lambda node: isinstance(node, OPTAX))


def _renamed(before: Any, after: Any) -> Any:
    """What `_named` gave, gone on from elsewhere, with the names that it had."""
    step = steps_taken(after)

    def rename(old: Any, new: Any) -> Any:
        if isinstance(old, optax.ScaleByAdamState):
            return optax.ScaleByAdamState(new.step, new.exp_avg, new.exp_avg_sq)
        if isinstance(old, optax.TraceState):
            return optax.TraceState(new.momentum_buffer)
        if isinstance(old, optax.ScaleByScheduleState):
            count = jax.tree.map(lambda x: jnp.asarray(step, x.dtype), old.count)
            return optax.ScaleByScheduleState(count)
        return new

    return jax.tree.map(rename, before, after, is_leaf=lambda node: isinstance(node, OPTAX))


def _groups(options: Mapping[str, Any], names: list[str], count: int) -> list[dict[str, Any]]:
    return [{"names": names, **json_of(_numbers(options, count))}] if options else []


def _numbers(options: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Options with the numbers of schedules after so many steps."""
    return {name: _settled(value, count) for name, value in options.items()}


def _plateau(state: Any) -> dict[str, Any] | None:
    found = _plateau_state(state)
    if found is None:
        return None
    lr, best, bad, cooldown = (np.asarray(x).item() for x in jax.tree.leaves(found))
    return plateau_of(best, bad, cooldown, lr)


def _plateau_state(state: Any) -> PlateauState | None:
    def is_plateau(node: Any) -> bool:
        return isinstance(node, PlateauState)

    leaves = jax.tree.leaves(state, is_leaf=is_plateau)
    return next((node for node in leaves if is_plateau(node)), None)
