"""The neutral form of a torch model and its optimizers; see `flaxnets.swap.handover`."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from flaxnets.bridge.convert import _misfits, as_numpy
from flaxnets.swap.handover import (
    FREE,
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
from torch_ref.arrays import tensors
from torch_ref.training.optimizers import put
from torch_ref.training.schedules import wind

CYCLED = ("momentum", "betas")  # which a schedule may set as well as the rate


def capture(
    model: nn.Module, optimizers: Mapping[str, Any], step: int, schedulers: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, OptimizerState]]:
    """Weights and optimizers in the neutral form.

    Args:
        model: any torch module.
        optimizers: of torch, by the part of the model that each moves.
        step: how many were taken, which an SGD does not know.
        schedulers: of these; absent or None where there is none.

    Raises:
        HandoverError: an optimizer of parameters that are not the model's.

    >>> model = nn.Linear(2, 1)
    >>> weights, found = capture(model, {"": torch.optim.SGD(model.parameters(), lr=0.1)}, 0, {})
    >>> sorted(weights), found[""].groups[0]["names"], found[""].groups[0]["lr"]
    (['bias', 'weight'], ['weight', 'bias'], 0.1)
    """
    names = _names(model)
    found = {}
    for part, optimizer in optimizers.items():
        raise_for(_strangers(optimizer, names))
        for group in optimizer.param_groups:
            _slots_of(optimizer, group)  # which an optimizer without a neutral form has not
        slots = {
            f"{names[parameter]}.{slot}": as_numpy(torch.as_tensor(value)).copy()
            for parameter, own in optimizer.state.items()
            for slot, value in own.items()
            if value is not None
        }
        scheduler = schedulers.get(part)
        steps = [int(value) for label, value in slots.items() if label.endswith(".step")]
        taken = max(steps, default=step)
        found[part] = OptimizerState(
            name=_kind(optimizer),
            step=taken,
            scheduled=taken if scheduler is None else scheduler.last_epoch,
            slots=slots,
            groups=[
                {"names": [names[p] for p in group["params"]], **_options(group)}
                for group in optimizer.param_groups
            ],
            plateau=_plateau(scheduler, optimizer),
        )
    weights = {name: as_numpy(value).copy() for name, value in model.state_dict().items()}
    return weights, found


def restore(
    model: nn.Module,
    optimizers: Mapping[str, Any],
    found: Handover,
    schedulers: Mapping[str, Any],
    average: nn.Module | None = None,
) -> dict[str, Any]:
    """Put a neutral form into a model and its optimizers, in place; the optimizers.

    Args:
        model: any torch module.
        optimizers: of torch, by the part of the model that each moves; their steps, taken or
            not, are forgotten.
        found: the neutral form.
        schedulers: of the optimizers, not yet advanced.
        average: a module whose parameters become the average of the weights.

    Raises:
        HandoverError: with all that does not fit; nothing is then changed.
    """
    names = _names(model)
    findings = _weight_findings(model.state_dict(), found.weights)
    averaged = {} if average is None else dict(average.named_parameters())
    if averaged and found.average is None:
        findings.append("an average of the weights is missing")
    elif averaged:
        findings += [f"average: {x}" for x in _weight_findings(averaged, found.average or {})]
    findings += step_findings(found.step) + part_findings(found, optimizers)
    slots = {}
    for part in optimizers.keys() & found.optimizers.keys():
        told = found.optimizers[part]
        scheduler = schedulers.get(part)
        wrong = _strangers(optimizers[part], names) + kind_findings(_kind(optimizers[part]), told)
        wrong += number_findings(told)
        wrong += _group_findings(optimizers[part], told, names, scheduler is not None)
        wrong += _schedule_findings(scheduler, optimizers[part], told)
        if not wrong:
            slots[part], wrong = _fitted(optimizers[part], told, names)
        findings += wrong
    raise_for(findings)
    weights, others = tensors(found.weights), tensors(found.average or {})
    model.load_state_dict(weights)
    for name, value in averaged.items():
        value.data.copy_(others[name])
    for part, optimizer in optimizers.items():
        told, scheduler = found.optimizers[part], schedulers.get(part)
        put(optimizer, slots[part])
        if isinstance(scheduler, ReduceLROnPlateau):
            _put_plateau(scheduler, optimizer, told)
        elif scheduler is not None:
            wind(scheduler, told.scheduled)
        else:
            for group, known in zip(optimizer.param_groups, told.groups, strict=False):
                group["lr"] = known.get("lr", group["lr"])
    return dict(optimizers)


def _names(model: nn.Module) -> dict[nn.Parameter, str]:
    return {parameter: name for name, parameter in model.named_parameters()}


def _kind(optimizer: torch.optim.Optimizer) -> str:
    return type(optimizer).__name__.lower()


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    return json_of({name: value for name, value in group.items() if name != "params"})


def _strangers(optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str]) -> list[str]:
    own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    count = sum(parameter not in names for parameter in own)
    return [f"the optimizer moves {count} parameters that are not the model's"] if count else []


def _weight_findings(
    own: Mapping[str, torch.Tensor], weights: Mapping[str, np.ndarray]
) -> list[str]:
    findings = [f"missing {name}" for name in own.keys() - weights.keys()]
    findings += [f"unexpected {name}" for name in weights.keys() - own.keys()]
    for name in own.keys() & weights.keys():
        findings += _misfits(name, weights[name], tuple(own[name].shape), _dtype(own[name]))
    return findings


def _dtype(value: torch.Tensor) -> np.dtype:
    """NumPy's dtype of a tensor, which stays where it is."""
    return as_numpy(torch.zeros((), dtype=value.dtype)).dtype


def _group_findings(
    optimizer: torch.optim.Optimizer,
    told: OptimizerState,
    names: Mapping[nn.Parameter, str],
    scheduled: bool,
) -> list[str]:
    """Groups of other parameters, or of other hyper-parameters, as far as they are known."""
    if not told.groups:
        return []
    own = [[names.get(p, "") for p in group["params"]] for group in optimizer.param_groups]
    known = [group["names"] for group in told.groups]
    if sorted(map(sorted, own)) != sorted(map(sorted, known)):
        return [f"param_groups of {list(map(len, own))} parameters, not {list(map(len, known))}"]
    if own != known and list(map(sorted, own)) != list(map(sorted, known)):
        return ["param_groups in another order"]
    free = FREE + CYCLED if scheduled else FREE
    return [
        finding
        for group, other in zip(optimizer.param_groups, told.groups, strict=True)
        for finding in option_findings(_options(group), other, free)
    ]


def _schedule_findings(
    scheduler: Any, optimizer: torch.optim.Optimizer, told: OptimizerState
) -> list[str]:
    on_plateau = isinstance(scheduler, ReduceLROnPlateau)
    if wrong := plateau_findings(on_plateau, told):
        return wrong
    if scheduler is None:
        return []
    if scheduler.last_epoch:
        return [f"the scheduler has taken {scheduler.last_epoch} steps; give a new one"]
    if on_plateau:
        count, rates = len(optimizer.param_groups), len(rates_of(told))
        return [] if rates in (1, count) else [f"the plateau has {rates} rates, not {count}"]
    # Rates are made of those before them, so the schedule is tried out on a copy.
    alone = copy.copy(optimizer)
    alone.param_groups = [
        {k: v if k == "params" else copy.deepcopy(v) for k, v in group.items()}
        for group in optimizer.param_groups
    ]
    try:
        wind(copy.deepcopy(scheduler, {id(optimizer): alone}), told.scheduled)
    except Exception as error:  # whatever a scheduler, or a user's function in it, has against it
        kind = type(scheduler).__name__
        return [f"{kind} does not take {told.scheduled} steps: {error}"]
    return []


def _fitted(
    optimizer: torch.optim.Optimizer, told: OptimizerState, names: Mapping[nn.Parameter, str]
) -> tuple[dict[nn.Parameter, dict[str, torch.Tensor]], list[str]]:
    """The slots of every parameter, and what is wrong with them."""
    given: dict[str, dict[str, np.ndarray]] = {}
    for label, value in told.slots.items():
        name, _, slot = label.rpartition(".")
        given.setdefault(name, {})[slot] = value
    findings, ready = [], {}
    for group in optimizer.param_groups:
        wanted = _slots_of(optimizer, group)
        for parameter in group["params"]:
            name = names[parameter]
            own = given.pop(name, {})
            if not own and (not told.slots or not parameter.requires_grad):
                continue  # before its first step torch has nothing
            findings += [f"missing {slot} of {name}" for slot in wanted.keys() - own.keys()]
            findings += [f"unexpected {slot} of {name}" for slot in own.keys() - wanted.keys()]
            for slot in own.keys() & wanted.keys():
                shape, dtype = tuple(parameter.shape), _dtype(parameter)
                if wanted[slot].dim() == 0:  # one number, in whichever precision
                    shape, dtype = (), own[slot].dtype
                findings += _misfits(f"{slot} of {name}", own[slot], shape, dtype)
            ready[parameter] = tensors(own)
    findings += [f"unexpected {slot} of {name}" for name, own in given.items() for slot in own]
    if (
        not told.slots
        and told.step
        and any(_slots_of(optimizer, group) for group in optimizer.param_groups)
    ):
        findings.append(f"no slots after {told.step} steps")
    return ready, findings


def _slots_of(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """What an optimizer remembers of a parameter, seen on a step of one that does not matter."""
    alone = nn.Parameter(torch.zeros(1))
    alone.grad = torch.zeros(1)
    try:
        probe: Any = type(optimizer)([alone])  # type: ignore[call-arg]
        settings = {name: value for name, value in group.items() if name not in ("params", *FREE)}
        probe.param_groups[0].update(settings)
        probe.step()
    except (TypeError, RuntimeError):
        raise HandoverError(f"{_kind(optimizer)} has no neutral form") from None
    own = probe.state[alone].items()
    return {slot: torch.as_tensor(value) for slot, value in own if value is not None}


def _plateau(scheduler: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    if not isinstance(scheduler, ReduceLROnPlateau):
        return None
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    best, bad = float(scheduler.best), scheduler.num_bad_epochs
    return plateau_of(best, bad, scheduler.cooldown_counter, rates)


def _put_plateau(
    scheduler: ReduceLROnPlateau, optimizer: torch.optim.Optimizer, told: OptimizerState
) -> None:
    plateau: Any = told.plateau
    if plateau["best"] is not None:
        scheduler.best = plateau["best"]
    scheduler.num_bad_epochs = plateau["num_bad_epochs"]
    scheduler.cooldown_counter = plateau["cooldown_counter"]
    scheduler.last_epoch = told.scheduled
    rates = rates_of(told)
    rates = rates if len(rates) > 1 else rates * len(optimizer.param_groups)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
