"""The neutral form and a Flax model: what does not fit is said at once, and nothing changes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

import flaxnets
from flaxnets import bridge, swap
from flaxnets.bridge.convert import in_dtype
from flaxnets.swap import handover_flax
from flaxnets.swap.handover import Handover, HandoverError, OptimizerState
from flaxnets.training import clipping, optimizers, schedules


def _model(seed=0):
    return flaxnets.create("feedforward", variant="tiny", seed=seed)


def _after_a_step(model, optimizer):
    params = nnx.state(model, nnx.Param)
    grads = jax.tree.map(jnp.ones_like, params)
    optimizer = optax.with_extra_args_support(optimizer)
    return optimizer.update(grads, optimizer.init(params), params, value=1.0)[1]


def _captured(model, optimizer, options=None):
    state = _after_a_step(model, optimizer)
    weights, found = handover_flax.capture(model, {"": state}, 1, {"": options or {}})
    return Handover(step=1, weights=weights, optimizers=found)


def _changed(found, **slots):
    """With other slots; None takes one away."""
    (own,) = found.optimizers.values()
    after = {**own.slots, **slots}
    kept = {name: value for name, value in after.items() if value is not None}
    return Handover(
        step=found.step,
        weights=found.weights,
        optimizers={"": OptimizerState(**{**vars(own), "slots": kept})},
    )


def test_all_findings_in_one_error():
    """Names, shapes, dtypes, slots and hyper-parameters; model and state stay as they are."""
    model, other = _model(), _model(1)
    found = _captured(model, optimizers.adam(0.1), {"lr": 0.1, "eps": 1e-4})
    found = _changed(
        found,
        **{
            "linear1.weight.exp_avg": np.ones((1, 2), np.float32),
            "linear1.bias.exp_avg": None,
            "linear2.bias.exp_avg_sq": np.ones(found.weights["linear2.bias"].shape),
            "nobody.exp_avg": np.ones(1, np.float32),
        },
    )
    weights = {**found.weights, "linear1.bias": np.ones(1, np.float32), "more": np.ones(1)}
    del weights["linear2.weight"]
    found = Handover(step=1, weights=weights, optimizers=found.optimizers)
    state = optimizers.adam(0.1).init(nnx.state(other, nnx.Param))
    before = bridge.state_dict(other)
    with pytest.raises(HandoverError) as caught:
        handover_flax.restore(other, {"": state}, found, {"": {"eps": 1e-8}})
    message = str(caught.value)
    for part in (
        "missing linear2.weight",
        "unexpected more",
        "linear1.bias has shape (1,), not",
        "unexpected exp_avg of nobody",
        "exp_avg of linear1.weight has shape (1, 2), not",
        "missing exp_avg of linear1.bias",
        "exp_avg_sq of linear2.bias has dtype float64, not float32",
        "eps is 1e-08, not 0.0001",
    ):
        assert part in message
    assert "\n" not in message
    for name, value in bridge.state_dict(other).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (optimizers.sgd(0.1, momentum=0.9), "the optimizer is sgd, not adam"),
        (optimizers.adam(0.1, amsgrad=True), "missing max_exp_avg_sq of linear1.weight"),
        (
            optax.chain(optimizers.adam(1.0), schedules.reduce_lr_on_plateau(0.1)),
            "a plateau is missing",
        ),
        (optax.rmsprop(0.1), "parts that have torch's names"),
    ],
)
def test_another_optimizer(optimizer, message):
    """An optimizer of another kind, or with other slots, is refused."""
    model = _model()
    found = _captured(model, optimizers.adam(0.1))
    state = optimizer.init(nnx.state(model, nnx.Param))
    with pytest.raises(HandoverError, match=message):
        handover_flax.restore(model, {"": state}, found, {})


def test_options():
    """Options that both sides name must be equal but for the rate; a schedule is its number."""
    model = _model()
    options = {"lr": lambda count: 0.5 / (1 + count), "eps": 1e-4, "betas": (0.9, 0.99)}
    found = _captured(model, optimizers.adam(**options), options)
    ((group,),) = [own.groups for own in found.optimizers.values()]
    assert group["lr"] == 0.25
    assert group["betas"] == [0.9, 0.99]
    state = optimizers.adam(0.1).init(nnx.state(model, nnx.Param))
    handover_flax.restore(model, {"": state}, found, {"": {"lr": 0.3, "eps": 1e-4}})
    with pytest.raises(HandoverError, match=r"does not fit: eps is 1e-08, not 0\.0001"):
        handover_flax.restore(model, {"": state}, found, {"": {"eps": 1e-8}})


def _adamw(dtype="float32"):
    """A torch model and its AdamW in the middle of its steps."""
    theirs = flaxnets.create("feedforward", "torch", "tiny", dtype=dtype)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.01)
    for seed in range(3):
        torch.manual_seed(seed)
        for parameter in theirs.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return theirs, optimizer


SCHEDULE = optax.piecewise_constant_schedule(0.1, {2: 0.1})  # 0.01 after three steps


@pytest.mark.parametrize(
    ("optimizer", "same"),
    [
        (optimizers.adamw(0.01), True),
        (optimizers.adam(0.01, weight_decay=0.01, decoupled_weight_decay=True), True),
        (optimizers.adamw(SCHEDULE), True),
        (optax.chain(clipping.clip_grad_norm(1.0), optimizers.adamw(0.01)), True),
        (optax.adamw(0.01, weight_decay=0.01), True),
        (optax.apply_if_finite(optax.adamw(0.01, weight_decay=0.01), 3), True),
        (optax.inject_hyperparams(optax.adamw)(0.01, weight_decay=0.01), True),
        (optimizers.adamw(10.0), False),
        (optimizers.adamw(0.01, weight_decay=0.5), False),
        (optimizers.adamw(0.01, betas=(0.8, 0.999)), False),
        (optimizers.adamw(0.01, eps=1e-3), False),
        (optax.adamw(5.0), False),
        (optax.adamw(0.01, weight_decay=0.01, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
         False),
        (optimizers.adam(1e-2), False),
    ],
)  # fmt: skip
def test_hyper_parameters(tmp_path, optimizer, same):
    """Those of an optax transformation show in its steps; others are refused, nothing changes."""
    swap.save_handover(tmp_path / "handover", *_adamw(), step=3)
    model = _model()
    ours = nnx.Optimizer(model, optimizer, wrt=nnx.Param)
    before = jax.tree.map(np.asarray, (nnx.state(model), nnx.state(ours)))
    if same:
        assert swap.load_handover(tmp_path / "handover", model, ours).step == 3
        return
    message = r"takes other steps than adamw with .*lr 0\.01, .*weight_decay 0\.01"
    with pytest.raises(HandoverError, match=message):
        swap.load_handover(tmp_path / "handover", model, ours)
    after = nnx.state(model), nnx.state(ours)
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(one, other)


def _line_search():
    """It asks for a function of the loss, which a handover has not."""

    def update(updates, state, params=None, *, value_fn, **more):
        return updates, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.MultiSteps(optimizers.adamw(0.01), 2).gradient_transformation(),
        optax.chain(optimizers.adamw(0.01), _line_search()),
    ],
)
def test_hyper_parameters_that_cannot_be_tried(tmp_path, optimizer):
    """Of an optimizer that takes no step by a gradient alone it is said what they have to be."""
    swap.save_handover(tmp_path / "handover", *_adamw("float64"), step=3)
    with jax.enable_x64(True):
        model = in_dtype(_model(), "float64")
        ours = nnx.Optimizer(model, optimizer, wrt=nnx.Param)
        with pytest.warns(UserWarning, match=r"cannot be tried out; they have to be .*lr 0\.01"):
            assert swap.load_handover(tmp_path / "handover", model, ours).step == 3


def test_hyper_parameters_of_a_state(tmp_path):
    """A state shows those that optax injects; of another one it is said that they are not seen."""
    swap.save_handover(tmp_path / "handover", *_adamw(), step=3)
    model = _model()
    params = nnx.state(model, nnx.Param)
    injected = optax.inject_hyperparams(optax.adamw)
    swap.load_handover(tmp_path / "handover", model, injected(0.01, weight_decay=0.01).init(params))
    for wrong, message in (
        (injected(10.0, weight_decay=0.01), "lr is 10.0, not 0.01"),
        (injected(0.01, weight_decay=0.5), "weight_decay is 0.5, not 0.01"),
        (injected(0.01, b1=0.8, weight_decay=0.01), r"betas is \[0.8, 0.999\], not \[0.9, 0.999\]"),
    ):
        with pytest.raises(HandoverError, match=message):
            swap.load_handover(tmp_path / "handover", model, wrong.init(params))
    with pytest.warns(UserWarning, match=r"does not show .* weight_decay 0\.01"):
        swap.load_handover(tmp_path / "handover", model, optax.adamw(0.01).init(params))


def test_groups():
    """Groups of torch that are treated differently are refused, others go on as one."""
    model = _model()
    found = _captured(model, optimizers.adam(0.1))
    (own,) = found.optimizers.values()
    state = optimizers.adam(0.1).init(nnx.state(model, nnx.Param))
    for decay in (0.0, 0.1):
        groups = [
            {"names": [], "weight_decay": 0.1},
            {"names": ["linear1.bias"], "weight_decay": decay},
        ]
        grouped = OptimizerState(**{**vars(own), "groups": groups})
        told = Handover(step=1, weights=found.weights, optimizers={"": grouped})
        if decay:
            assert handover_flax.restore(model, {"": state}, told, {})[""].step == 1
            continue
        with pytest.raises(HandoverError, match="the 2 param_groups differ in weight_decay"):
            handover_flax.restore(model, {"": state}, told, {})


def test_parts():
    """Optimizers that one side lacks are named."""
    model = _model()
    found = _captured(model, optimizers.adam(0.1))
    state = optimizers.adam(0.1).init(nnx.state(model.linear1, nnx.Param))
    with pytest.raises(HandoverError) as caught:
        handover_flax.restore(model, {"linear1": state}, found, {})
    assert str(caught.value) == (
        "does not fit: missing optimizer of part 'linear1'; unexpected optimizer of the whole model"
    )
