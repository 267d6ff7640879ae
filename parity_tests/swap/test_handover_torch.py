"""The neutral form and a torch model: what does not fit is said at once, and nothing changes."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from flaxnets.swap import handover_torch
from flaxnets.swap.handover import Handover, HandoverError, OptimizerState


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one = torch.nn.Linear(2, 3)
        self.two = torch.nn.Linear(3, 1)


def _groups(model, decay=0.1):
    """As most scripts have them: biases do not decay."""
    named = dict(model.named_parameters())
    return [
        {"params": [p for n, p in named.items() if n.endswith("weight")], "weight_decay": decay},
        {"params": [p for n, p in named.items() if n.endswith("bias")], "weight_decay": 0.0},
    ]


def _step(optimizer):
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def _captured(model, optimizer, scheduler=None):
    weights, found = handover_torch.capture(model, {"": optimizer}, 1, {"": scheduler})
    return Handover(step=1, weights=weights, optimizers=found)


def _after_a_step(**options):
    model = Net()
    optimizer = torch.optim.AdamW(_groups(model), lr=0.1, **options)
    _step(optimizer)
    return model, optimizer


def test_groups_and_schedule():
    """Two groups and a scheduler that was advanced once an epoch: the next rates are the same."""
    model = Net()
    optimizer = torch.optim.AdamW(_groups(model), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    for _ in range(2):
        _step(optimizer)
    scheduler.step()
    found = _captured(model, optimizer, scheduler)
    other = Net()
    optimizers = {"": torch.optim.AdamW(_groups(other), lr=0.1)}
    schedulers = {"": torch.optim.lr_scheduler.StepLR(optimizers[""], 1, gamma=0.5)}
    handover_torch.restore(other, optimizers, found, schedulers)
    for one in (optimizer, optimizers[""]):
        _step(one)
    for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert [group["lr"] for group in optimizers[""].param_groups] == [0.05, 0.05]
    assert schedulers[""].last_epoch == 1


def test_rate():
    """Without a scheduler the rate that was in force stays in force."""
    model, optimizer = _after_a_step()
    optimizer.param_groups[1]["lr"] = 0.3
    other = Net()
    ours = torch.optim.AdamW(_groups(other), lr=0.7)
    handover_torch.restore(other, {"": ours}, _captured(model, optimizer), {})
    assert [group["lr"] for group in ours.param_groups] == [0.1, 0.3]


def test_dtype_of_the_product():
    """NAdam's product of momenta stays float32 beside parameters in float64, as it was."""
    model = Net().double()
    optimizer = torch.optim.NAdam(model.parameters())
    _step(optimizer)
    found = _captured(model, optimizer)
    other = Net().double()
    ours = torch.optim.NAdam(other.parameters())
    handover_torch.restore(other, {"": ours}, found, {})
    assert ours.state[other.one.weight]["mu_product"].dtype == torch.float32
    assert ours.state[other.one.weight]["exp_avg"].dtype == torch.float64


def test_all_findings_in_one_error():
    """Names, shapes, dtypes and slots; model and optimizer stay as they are."""
    model, optimizer = _after_a_step()
    found = _captured(model, optimizer)
    slots = {
        **found.optimizers[""].slots,
        "one.weight.exp_avg": np.ones((1, 2), np.float32),
        "two.bias.exp_avg_sq": np.ones(1),
        "nobody.exp_avg": np.ones(1, np.float32),
    }
    del slots["one.bias.exp_avg"]
    weights = {**found.weights, "one.bias": np.ones(1, np.float32), "more": np.ones(1)}
    del weights["two.weight"]
    state = OptimizerState(**{**vars(found.optimizers[""]), "slots": slots})
    bad = Handover(step=1, weights=weights, optimizers={"": state})
    other, ours = _after_a_step()
    before = copy.deepcopy([other.state_dict(), ours.state_dict()])
    with pytest.raises(HandoverError) as caught:
        handover_torch.restore(other, {"": ours}, bad, {})
    assert str(caught.value) == (
        "does not fit: exp_avg of one.weight has shape (1, 2), not (3, 2); "
        "exp_avg_sq of two.bias has dtype float64, not float32; "
        "missing exp_avg of one.bias; missing two.weight; one.bias has shape (1,), not (3,); "
        "unexpected exp_avg of nobody; unexpected more"
    )
    after = [other.state_dict(), ours.state_dict()]
    for one, two in zip(before[0].values(), after[0].values(), strict=True):
        assert torch.equal(one, two)
    assert str(before[1]) == str(after[1])


def test_average():
    """An average of the weights is judged with all the rest, and taken over."""
    model, optimizer = _after_a_step()
    found = dataclasses.replace(_captured(model, optimizer), average={"one.bias": np.ones(2)})
    other, ours = _after_a_step()
    averaged = Net()
    before = copy.deepcopy([other.state_dict(), averaged.state_dict()])
    with pytest.raises(HandoverError) as caught:
        handover_torch.restore(other, {"": ours}, found, {}, averaged)
    assert str(caught.value) == (
        "does not fit: average: missing one.weight; average: missing two.bias; "
        "average: missing two.weight; average: one.bias has shape (2,), not (3,)"
    )
    for one, two in zip(before, [other.state_dict(), averaged.state_dict()], strict=True):
        assert all(torch.equal(value, two[name]) for name, value in one.items())
    found = dataclasses.replace(found, average=found.weights)
    handover_torch.restore(other, {"": ours}, found, {}, averaged)
    assert all(
        torch.equal(value, model.state_dict()[k]) for k, value in averaged.named_parameters()
    )


PLATEAU = torch.optim.lr_scheduler.ReduceLROnPlateau
DIFFERENT = {
    "the optimizer is sgd, not adamw": lambda m: torch.optim.SGD(_groups(m), momentum=0.9),
    "amsgrad is True, not False": lambda m: torch.optim.AdamW(_groups(m), amsgrad=True),
    r"betas is \[0.8, 0.999\], not \[0.9": lambda m: torch.optim.AdamW(
        _groups(m), betas=(0.8, 0.999)
    ),
    "weight_decay is 0.2, not 0.1": lambda m: torch.optim.AdamW(_groups(m, 0.2)),
    r"param_groups of \[4\] parameters, not \[2, 2\]": lambda m: torch.optim.AdamW(m.parameters()),
    "param_groups in another order": lambda m: torch.optim.AdamW(_groups(m)[::-1]),
    "moves 4 parameters that are not the model's": lambda m: torch.optim.AdamW(_groups(Net())),
}


@pytest.mark.parametrize("message", DIFFERENT)
def test_another_optimizer(message):
    """An optimizer of another kind, of other parameters or made otherwise is refused."""
    model, optimizer = _after_a_step()
    found, other = _captured(model, optimizer), Net()
    with pytest.raises(HandoverError, match=message):
        handover_torch.restore(other, {"": DIFFERENT[message](other)}, found, {})


def test_another_schedule():
    """A scheduler that has moved, and a plateau on one side only, are refused."""
    model, optimizer = _after_a_step()
    found, other = _captured(model, optimizer), Net()
    ours = torch.optim.AdamW(_groups(other), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(ours, 1)
    _step(ours)
    scheduler.step()
    with pytest.raises(HandoverError, match="the scheduler has taken 1 steps; give a new one"):
        handover_torch.restore(other, {"": ours}, found, {"": scheduler})
    with pytest.raises(HandoverError, match="a plateau is missing"):
        handover_torch.restore(other, {"": ours}, found, {"": PLATEAU(ours)})
    plateau = PLATEAU(optimizer)
    with pytest.raises(HandoverError, match="a plateau is unexpected"):
        handover_torch.restore(other, {"": ours}, _captured(model, optimizer, plateau), {})


def test_no_neutral_form():
    """An optimizer without slots of single parameters is refused by name."""
    model = Net()
    optimizer = torch.optim.LBFGS(model.parameters())
    with pytest.raises(HandoverError, match="lbfgs has no neutral form"):
        _captured(model, optimizer)


def test_before_the_first_step():
    """A torch optimizer that has nothing yet, and one that has lost what it had."""
    model, other = Net(), Net()
    optimizer = torch.optim.Adam(model.parameters())
    found = _captured(model, optimizer)
    (state,) = found.optimizers.values()
    ours = torch.optim.Adam(other.parameters())
    _step(ours)
    started = OptimizerState(**{**vars(state), "step": 0})
    begun = Handover(step=0, weights=found.weights, optimizers={"": started})
    handover_torch.restore(other, {"": ours}, begun, {})
    assert not ours.state
    lost = Handover(step=1, weights=found.weights, optimizers={"": state})
    with pytest.raises(HandoverError, match="no slots after 1 steps"):
        handover_torch.restore(other, {"": ours}, lost, {})
