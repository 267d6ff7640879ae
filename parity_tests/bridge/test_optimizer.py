"""Optimizer states through the bridge: bit-exact, strict, and training goes on on either side."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from hypothesis import strategies as st

import flaxnets
from flaxnets import bridge
from flaxnets.bridge.convert import entries
from flaxnets.parity.compare import compare
from flaxnets.tasks import classification, gan
from flaxnets.training import Phase, TrainStep, clipping, optimizers, schedules
from parity_tests import fuzz
from parity_tests.tensors import CARRIED, LEFT, NONE, make
from torch_ref.arrays import optimizer_tensors, tensors
from torch_ref.training.optimizers import BY_NAME

CASES = [
    ("sgd", {}),
    ("sgd", {"momentum": 0.9}),
    ("sgd", {"momentum": 0.9, "dampening": 0.3}),
    ("adam", {}),
    ("adam", {"amsgrad": True, "weight_decay": 0.1}),
    ("adamw", {"betas": (0.7, 0.9)}),
    ("rmsprop", {}),
    ("rmsprop", {"centered": True, "momentum": 0.9}),
    ("adagrad", {"initial_accumulator_value": 0.3, "lr_decay": 0.1}),
    ("adadelta", {}),
    ("adamax", {}),
    ("nadam", {}),
    ("radam", {"betas": (0.9, 0.9)}),
]


@pytest.fixture(scope="module")
def pair():
    """Convolutions both ways, normalisation with statistics and a dense layer, in float64."""
    return _pair("gan", "float64")


def _pair(name, dtype="float32"):
    """Both models with torch's weights; Flax's comes out of `nnx.merge`, which sorts attributes."""
    twin = flaxnets.create(name, "torch", "tiny").to(getattr(torch, dtype))
    graph, state = nnx.split(nnx.eval_shape(lambda: flaxnets.create(name, variant="tiny")))

    def zeros(leaf):
        real = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.zeros(leaf.shape, dtype if real else leaf.dtype)

    with jax.enable_x64(True):
        flax = nnx.merge(graph, jax.tree.map(zeros, state))
    bridge.load_state_dict(flax, twin.state_dict())
    return flax, twin


def _params(model):
    return nnx.state(model, nnx.Param)


def _in_flax(model, arrays):
    """Arrays under torch's names as the State of the model's parameters."""
    other = nnx.merge(*nnx.split(model), copy=True)
    bridge.load_state_dict(other, bridge.state_dict(model) | arrays)
    return _params(other)


class _Run:
    """Both sides of a training run on the same random gradients."""

    def __init__(self, pair, name, options):
        self.model, self.twin = pair[0], copy.deepcopy(pair[1])
        self.name, self.options = name, {"lr": 0.05, **options}
        self.optimizer = optimizers.BY_NAME[name](**self.options)
        self.update = jax.jit(self.optimizer.update)
        self.reference = BY_NAME[name](self.twin.parameters(), **self.options)
        self.params = _params(self.model)
        self.state = self.fresh()
        self.rng = np.random.default_rng(0)

    def fresh(self):
        return self.optimizer.init(self.params)

    def steps(self, count, flax=True, torch_=True):
        """Steps on either side or both; with both, the updates have to agree."""
        for _ in range(count):
            past = self.torch_params()
            grads = {key: self.rng.standard_normal(value.shape) for key, value in past.items()}
            ours = {}
            if flax:
                updates, self.state = self.update(
                    _in_flax(self.model, grads), self.state, self.params
                )
                self.params = optax.apply_updates(self.params, updates)
                ours = bridge.state_dict(self.model, updates)
            if torch_:
                for key, value in self.twin.named_parameters():
                    value.grad = torch.tensor(grads[key])
                self.reference.step()
            if flax and torch_:
                after = self.torch_params()
                found = compare({key: after[key] - past[key] for key in past}, ours)
                assert found.error < 1e-10, found

    def torch_params(self):
        named = self.twin.named_parameters()
        return {key: value.detach().numpy().copy() for key, value in named}

    def exported(self):
        create = optimizers.BY_NAME[self.name]
        return bridge.optimizer_state_dict(self.model, self.state, create, **self.options)

    def to_torch(self):
        """Torch goes on from Flax's parameters and state."""
        self.twin.load_state_dict(tensors(bridge.state_dict(self.model, self.params)), strict=False)
        self.reference.load_state_dict(optimizer_tensors(self.exported()))

    def to_flax(self):
        """Flax goes on from torch's parameters and state."""
        self.params = _in_flax(self.model, self.torch_params())
        step = 0 if self.name != "sgd" else int(self.state.step)
        self.state = bridge.load_optimizer_state_dict(
            self.model,
            self.fresh(),
            self.reference.state_dict(),
            **({"step": step} if self.name == "sgd" else {}),
        )


def _same(one, other, dtypes=True):
    """The same slots of the same parameters, to the bit."""
    assert one.keys() == other.keys()
    for index in one:
        assert one[index].keys() == other[index].keys()
        for name, array in one[index].items():
            array, value = np.asarray(array), np.asarray(other[index][name])
            if dtypes:
                assert array.dtype == value.dtype, name
            np.testing.assert_array_equal(array, value)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_flax_to_torch_and_back(pair, name, options):
    """Torch goes on where Flax stopped, then Flax where torch did; nothing is lost on the way."""
    with jax.enable_x64(True):
        run = _Run(pair, name, options)
        run.steps(4, torch_=False)
        there, held = run.exported(), run.state
        run.to_torch()
        # torch casts all that it loads, but for the step, to the parameter's dtype.
        _same(there["state"], run.reference.state_dict()["state"], dtypes=name != "nadam")
        run.to_flax()
        _same(there["state"], run.exported()["state"], dtypes=name != "nadam")
        for one, other in zip(jax.tree.leaves(held), jax.tree.leaves(run.state), strict=True):
            assert one.dtype == other.dtype or name == "nadam"
            np.testing.assert_array_equal(one, other)
        run.steps(3)
        _check_slots(run)
        assert run.reference.param_groups[0]["lr"] == 0.05


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_torch_to_flax(pair, name, options):
    """Flax goes on where torch stopped, from its fresh state too."""
    with jax.enable_x64(True):
        for taken in (0, 4):
            run = _Run(pair, name, options)
            run.steps(taken, flax=False)
            run.state = run.state._replace(step=jnp.int32(taken))  # for SGD to be told
            run.to_flax()
            assert int(run.state.step) == taken
            _same(run.reference.state_dict()["state"], run.exported()["state"])
            run.steps(3)
            _check_slots(run)


def _check_slots(run):
    ours, theirs = run.exported()["state"], run.reference.state_dict()["state"]
    assert ours.keys() == theirs.keys()
    for index in ours:
        arrays = {key: np.asarray(value) for key, value in theirs[index].items()}
        found = compare(arrays, ours[index])
        assert found.error < 1e-10, (index, found)


@pytest.mark.parametrize("name", flaxnets.names())
def test_order_is_torchs(name):
    """Parameters come in the order of torch's `named_parameters`, whatever the architecture."""
    # An abstract model, made by `nnx.merge`, which sorts attributes by name.
    flax = nnx.eval_shape(lambda: flaxnets.create(name, variant="tiny"))
    twin = flaxnets.create(name, "torch", "tiny")
    ours = [entry.name for entry in entries(flax) if isinstance(entry.variable, nnx.Param)]
    assert ours == [key for key, _ in twin.named_parameters()]


@pytest.mark.parametrize("name", BY_NAME)
def test_group_is_torchs(name):
    """The hyper-parameters are torch's, but for those that say how and not what."""
    model = flaxnets.create("linear_network")
    optimizer = optimizers.BY_NAME[name]
    state = optimizer(lr=0.3).init(_params(model))
    (ours,) = bridge.optimizer_state_dict(model, state, optimizer, lr=0.3)["param_groups"]
    reference = BY_NAME[name]([torch.zeros(1, requires_grad=True)] * 1, lr=0.3)
    (theirs,) = reference.state_dict()["param_groups"]
    free = {"foreach", "capturable", "differentiable", "fused", "params"}
    free |= {"decoupled_weight_decay"} if name == "adamw" else set()  # which torch adds itself
    assert ours.pop("params") == [0, 1]
    assert ours == {key: value for key, value in theirs.items() if key not in free}


def test_schedules_become_numbers():
    """A rate and a beta that are schedules are exported as what torch's would be now."""
    model = flaxnets.create("linear_network")
    options = {"lr": schedules.step_lr(0.5, 2), "betas": (lambda count: 0.9 - 0.1 * count, 0.99)}
    state = optimizers.adam(**options).init(_params(model))._replace(step=jnp.int32(2))
    (group,) = bridge.optimizer_state_dict(model, state, optimizers.adam, **options)["param_groups"]
    assert group["lr"] == pytest.approx(0.05)
    assert group["betas"] == pytest.approx((0.7, 0.99))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtypes_survive(dtype):
    """Slots keep their bits in other dtypes, through torch."""
    flax, twin = _pair("conv_net", dtype)
    params = _params(flax)
    optimizer = optimizers.nadam()
    with jax.numpy_dtype_promotion("standard"):  # rates are float32
        _, state = jax.jit(optimizer.update)(params, optimizer.init(params), params)
    there = bridge.optimizer_state_dict(flax, state, optimizers.nadam)
    reference = torch.optim.NAdam(twin.parameters())
    reference.load_state_dict(optimizer_tensors(there))
    back = bridge.load_optimizer_state_dict(flax, optimizer.init(params), reference.state_dict())
    for name in ("step", "exp_avg", "exp_avg_sq"):
        ours, theirs = (jax.tree.leaves(getattr(x, name)) for x in (state, back))
        for one, other in zip(ours, theirs, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    assert float(back.mu_product) == pytest.approx(float(state.mu_product), rel=1e-2)


def test_inside_of_a_chain_and_a_training_step():
    """The state of a `TrainStep`, between a clip and a plateau, goes out, comes in and goes on."""
    model = flaxnets.create("feedforward", variant="tiny", softmax=False)
    optimizer = optax.chain(
        clipping.clip_grad_norm(1.0), optimizers.adam(1.0), schedules.reduce_lr_on_plateau(0.1)
    )
    step = TrainStep(model, Phase(classification.objective(), optimizer))
    batch = jnp.ones((4, 7)), jnp.arange(4) % 3
    state = step.state
    for _ in range(3):
        state, _ = step(state, batch)
    (moments,) = step.moments(state)
    there = bridge.optimizer_state_dict(step.model(state), moments, optimizers.adam, lr=0.1)
    assert {float(own["step"]) for own in there["state"].values()} == {3.0}
    (fresh,) = step.moments(TrainStep(model, Phase(classification.objective(), optimizer)).state)
    back = bridge.load_optimizer_state_dict(model, fresh, there)
    for one, other in zip(jax.tree.leaves(back[1]), jax.tree.leaves(moments[1]), strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(fresh[1].step) == 0
    again = step.with_moments(state, [back[:2] + moments[2:]])
    # `again` shares its parameters with `state`, which a step uses up.
    ends = [step(jax.tree.map(jnp.copy, x), batch)[0] for x in (again, state)]
    for one, other in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="moments of structure"):
        step.with_moments(step.state, [moments[:2]])


def test_a_part_of_a_model():
    """A phase that trains a part has the state of that submodule, and of no more."""
    model, twin = _pair("gan")
    part = TrainStep(model, Phase(gan.generator(), optimizers.adam(), "generator"))
    (moments,) = part.moments(part.state)
    moments = moments._replace(step=jnp.int32(1))
    there = bridge.optimizer_state_dict(model.generator, moments, optimizers.adam)
    torch.optim.Adam(twin.generator.parameters()).load_state_dict(optimizer_tensors(there))
    shapes = [own["exp_avg"].shape for own in there["state"].values()]
    assert shapes == [tuple(value.shape) for value in twin.generator.parameters()]
    with pytest.raises(bridge.BridgeError, match=r"has \d+ of exp_avg and the model \d+ param"):
        bridge.optimizer_state_dict(model, moments, optimizers.adam)


def test_flax_own_optimizer():
    """The state of `nnx.Optimizer`, whose slots are Variables, goes both ways."""
    model = flaxnets.create("linear_network")
    optimizer = nnx.Optimizer(model, optimizers.adam(0.1), wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.ones_like, _params(model)))
    there = bridge.optimizer_state_dict(model, optimizer.opt_state, optimizers.adam, lr=0.1)
    other = nnx.Optimizer(model, optimizers.adam(0.1), wrt=nnx.Param)
    other.opt_state = bridge.load_optimizer_state_dict(model, other.opt_state, there)
    back = bridge.optimizer_state_dict(model, other.opt_state, optimizers.adam, lr=0.1)
    _same(there["state"], back["state"])
    other.update(model, jax.tree.map(jnp.ones_like, _params(model)))


def _adam_state():
    model = flaxnets.create("linear_network")
    state = optimizers.adam().init(_params(model))
    torchs = bridge.optimizer_state_dict(model, state._replace(step=jnp.int32(2)), optimizers.adam)
    return model, state, torchs


def _drop(state):
    del state["state"][0]["exp_avg"]
    del state["state"][1]


def _add(state):
    state["state"][0]["max_exp_avg_sq"] = np.zeros(1)
    state["state"][7] = {}


def _reshape(state):
    for own in state["state"].values():
        own["exp_avg"] = own["exp_avg"].T.copy()
        own["exp_avg_sq"] = own["exp_avg_sq"].astype(np.float64)


def _count(state):
    state["state"][0]["step"] = np.float32(2.5)


def _regroup(state):
    state["param_groups"] *= 2


def _rename(state):
    state["param_groups"][0]["param_names"] = ["W2", "W1"]


def _shorten(state):
    state["param_groups"][0]["params"] = [0]


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (
            _drop,
            ["missing exp_avg of {0}", "missing exp_avg of {1}", "missing step of {1}"],
        ),
        (_add, ["unexpected max_exp_avg_sq of {0}", "unexpected parameter 7"]),
        (
            _reshape,
            [
                "exp_avg of {0} has shape ",
                "exp_avg of {1} has shape ",
                "exp_avg_sq of {1} has dtype float64, not float32",
            ],
        ),
        (_count, ["step differs between parameters: 2, 2.5", "step 2.5 is not a count"]),
        (_regroup, ["2 param_groups, not 1"]),
        (_rename, ["W2 in the place of W1", "W1 in the place of W2"]),
        (_shorten, ["1 parameters, not 2"]),
    ],
)
def test_misfits_are_listed(spoil, parts):
    """Everything that does not fit is in one line, and the state stays as it was."""
    model, state, torchs = _adam_state()
    names = [entry.name for entry in entries(model)]
    spoil(torchs)
    with pytest.raises(bridge.BridgeError, match="optimizer state does not fit") as error:
        bridge.load_optimizer_state_dict(model, state, torchs)
    for part in parts:
        assert part.format(*names) in str(error.value)
    assert "\n" not in str(error.value)
    assert int(state.step) == 0


def test_other_options_are_refused():
    """A state of other options, another optimizer's, or none at all is one line."""
    model, state, torchs = _adam_state()
    with pytest.raises(bridge.BridgeError, match=r"these options make .*max_exp_avg_sq"):
        bridge.optimizer_state_dict(model, state, optimizers.adam, amsgrad=True)
    other = optimizers.adam(amsgrad=True).init(_params(model))
    with pytest.raises(bridge.BridgeError, match="missing max_exp_avg_sq of W1"):
        bridge.load_optimizer_state_dict(model, other, torchs)
    with pytest.raises(bridge.BridgeError, match="0 parts that have torch's names"):
        bridge.optimizer_state_dict(model, optax.adam(0.1).init(_params(model)), optimizers.adam)
    with pytest.raises(bridge.BridgeError, match="2 parts that have torch's names"):
        bridge.optimizer_state_dict(model, [state, state], optimizers.adam)
    with pytest.raises(bridge.BridgeError, match="this state counts its own; leave it out"):
        bridge.load_optimizer_state_dict(model, state, torchs, step=3)


def test_sgd_is_told_its_step():
    """What torch's SGD does not say: the count for a schedule, and that a first step was taken."""
    model = flaxnets.create("linear_network")
    for options, own in (({}, 0), ({"momentum": 0.9}, 1)):
        fresh = optimizers.sgd(**options).init(_params(model))
        trained = fresh._replace(step=jnp.int32(6))
        torchs = bridge.optimizer_state_dict(model, trained, optimizers.sgd, **options)
        loaded = bridge.load_optimizer_state_dict(model, fresh, torchs)
        assert int(loaded.step) == own
        loaded = bridge.load_optimizer_state_dict(model, fresh, torchs, step=6)
        assert int(loaded.step) == 6


def _drawn_from(odd):
    """Spoil a state: put something odd in the place that the keys lead to."""

    def spoil(state, keys):
        *way, last = keys
        for key in way:
            state = state[key]
        state[last] = odd

    return spoil


@pytest.mark.parametrize(
    ("keys", "odd", "said"),
    [
        (["state"], [], "no optimizer state: torch's is"),
        (["state"], None, "no optimizer state: torch's is"),
        (["state", 0], 3, "no optimizer state: torch's is"),
        (["param_groups"], {}, "no optimizer state: torch's is"),
        (["param_groups"], [1], "no optimizer state: torch's is"),
        (["param_groups", 0, "params"], None, "parameters are of type NoneType, not a list"),
        (["param_groups", 0, "params"], [1, 0], "not numbered from 0 to 1, but 1, 0"),
        (["param_groups", 0, "params"], ["0", "1"], "not numbered from 0 to 1, but 0, 1"),
        (["param_groups", 0, "param_names"], ["W1"], "1 param_names, not 2"),
        (["param_groups", 0, "param_names"], ["W1", "\x1b"], r"\x1b in the place of W2"),
        (["state", "0"], {}, "unexpected parameter '0'"),
        (["state", 0, 5], 1, "unexpected 5 of W1"),
        (["state", 0, "exp_avg"], None, "exp_avg of W1 is of type NoneType, not an array"),
        (["state", 0, "exp_avg"], make("sparse"), "exp_avg of W1 is a sparse tensor"),
        (["state", 0, "step"], "2", "step is no number"),
        (["state", 0, "step"], np.ones(2), "step is no number"),
        (["state", 0, "step"], 10**400, "step is no number"),
        (["state", 0, "step"], np.float32("inf"), "step inf is not a count"),
        (["state", 0, "step"], 2.0**31, "step 2147483648.0 is not a count"),
    ],
    ids=str,
)
def test_odd_parts_are_one_line(keys, odd, said):
    """A part of another type, length, order or range is named, and the state stays as it was."""
    model, state, torchs = _adam_state()
    _drawn_from(odd)(torchs, keys)
    before = jax.tree.map(np.asarray, state)
    with pytest.raises(bridge.BridgeError) as caught:
        bridge.load_optimizer_state_dict(model, state, torchs)
    assert said in str(caught.value)
    fuzz.require_line(str(caught.value))
    jax.tree.map(np.testing.assert_array_equal, before, state)


def test_no_state_at_all():
    """What is no mapping, or lacks a part, is one line."""
    model, state, torchs = _adam_state()
    for given in (None, [], {}, {"state": torchs["state"]}, {"param_groups": []}):
        with pytest.raises(bridge.BridgeError, match="no optimizer state: torch's is"):
            bridge.load_optimizer_state_dict(model, state, given)


def test_many_findings_are_one_short_line():
    """Ten findings are named and all are kept."""
    model = nnx.eval_shape(lambda: flaxnets.create("bert"))
    state = nnx.eval_shape(lambda: optimizers.adam().init(_params(model)))
    groups = [{"params": list(range(len(entries(model))))}]
    with pytest.raises(bridge.BridgeError) as caught:
        bridge.load_optimizer_state_dict(model, state, {"state": {0: {}}, "param_groups": groups})
    assert len(caught.value.findings) == 3 * len(entries(model))
    assert len(str(caught.value)) < 1500
    assert "more (all in the error's `findings`)" in str(caught.value)


ODD = st.one_of(
    st.sampled_from([*CARRIED, *LEFT]).map(make),
    st.sampled_from([*NONE, 0, -1, 2.0, 1 << 31, 10**400, float("nan"), np.float32(2), (0, 1)]).map(
        copy.deepcopy
    ),
)


@st.composite
def spoilt(draw, state):
    """A state with one to three of its parts replaced, removed, renamed or added."""
    state = copy.deepcopy(state)
    for _ in range(draw(st.integers(1, 3))):
        places = [*_places(state)]
        parent, key = places[draw(st.integers(0, len(places) - 1))]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "rename", "add", "other"]))
        if kind == "replace":
            parent[key] = draw(ODD)
        elif kind == "other":
            from_, name = places[draw(st.integers(0, len(places) - 1))]
            parent[key] = _copied(from_[name])
        elif kind == "remove":
            del parent[key]
        elif isinstance(parent, list):
            parent.insert(key, draw(ODD))
        else:
            name = draw(
                st.sampled_from([0, 1, 2, "0", "step", "exp_avg", "", "\x1b[2J", None, 0.5])
            )
            parent[name] = parent.pop(key) if kind == "rename" else draw(ODD)
        if not state:
            break
    return draw(ODD) if draw(st.integers(0, 19)) == 0 else state


def _copied(node):
    """Containers anew, with the same arrays; not every kind of tensor can be copied."""
    if isinstance(node, dict):
        return {key: _copied(value) for key, value in node.items()}
    return [*map(_copied, node)] if isinstance(node, list) else node


def _places(node):
    for key in range(len(node)) if isinstance(node, list) else list(node):
        yield node, key
        if isinstance(node[key], list | dict):
            yield from _places(node[key])


@pytest.mark.parametrize("name", ["adam", "sgd", "nadam", "adagrad"])
def test_any_state(name, attack, capfd):
    """A spoilt state is one line and changes nothing, or loads, and goes on as it says."""
    model = flaxnets.create("linear_network")
    options = {"momentum": 0.9} if name == "sgd" else {}
    optimizer = optimizers.BY_NAME[name](**options)
    fresh = optimizer.init(_params(model))
    taken = fresh._replace(step=jnp.int32(2))
    torchs = bridge.optimizer_state_dict(model, taken, optimizers.BY_NAME[name], **options)
    before = jax.tree.map(np.asarray, fresh)

    def check(state):
        after = None
        with fuzz.one_line(bridge.BridgeError):
            after = bridge.load_optimizer_state_dict(model, fresh, state)
        jax.tree.map(np.testing.assert_array_equal, before, fresh)
        if after is not None:
            assert jax.tree.structure(after) == jax.tree.structure(fresh)
            there = bridge.optimizer.optimizer_slots(model, after)
            for index, own in state["state"].items():
                for slot in own.keys() - {"step", "mu_product"}:
                    found = bridge.convert.as_numpy(own[slot])
                    np.testing.assert_array_equal(there[index][slot], found)

    attack("optimizer states", spoilt(torchs), check, 60)
    assert capfd.readouterr() == ("", "")
