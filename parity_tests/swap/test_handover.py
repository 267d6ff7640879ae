"""Training that changes the backend goes on as training that never did, from one folder."""

import copy
import json
import os
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from hypothesis import strategies as st

from flaxnets import bridge, layers, swap
from flaxnets.bridge.convert import in_dtype
from flaxnets.parity.trajectory import METHODS, Method
from flaxnets.swap import handover, script
from flaxnets.swap.handover import Handover, HandoverError, OptimizerState
from flaxnets.training import optimizers, schedules
from flaxnets.training.objective import apply
from parity_tests.fuzz import mutated, one_line
from torch_ref.arrays import tensors
from torch_ref.random import fold_in, key, replay

STEPS, SEED = 6, 5
TOLERANCE = 1e-10
rng = np.random.default_rng(0)
INPUTS, TARGETS = rng.normal(size=(STEPS, 8, 3)), rng.normal(size=(STEPS, 8, 2))


class Small(nnx.Module):
    """Batch statistics, dropout, and no gradient that is zero in exact arithmetic."""

    def __init__(self, seed):
        rngs = nnx.Rngs(seed)
        self.first = layers.Linear(3, 5, bias=False, rngs=rngs)
        self.norm = layers.BatchNorm1d(5, rngs=rngs)
        self.drop = layers.Dropout(0.3)
        self.last = layers.Linear(5, 2, rngs=rngs)

    def __call__(self, x, *, rngs=None):
        return self.last(self.drop(nnx.tanh(self.norm(self.first(x))), rngs=rngs))


class TorchSmall(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(3, 5, bias=False)
        self.norm = torch.nn.BatchNorm1d(5)
        self.drop = torch.nn.Dropout(0.3)
        self.last = torch.nn.Linear(5, 2)

    def forward(self, x):
        return self.last(self.drop(torch.tanh(self.norm(self.first(x)))))


def _flax_model(seed=0):
    return nnx.view(
        in_dtype(Small(seed), "float64"), deterministic=False, use_running_average=False
    )


def _torch_model(seed=0):
    model = TorchSmall().double()
    model.load_state_dict(tensors(bridge.state_dict(_flax_model(seed))))
    return model


class FlaxScript:
    """The loop of somebody who trains an NNX model with optax."""

    def __init__(self, optimizer, seed=0):
        with jax.enable_x64(True):
            self.model = _flax_model(seed)
            self.state = optimizer.init(nnx.state(self.model, nnx.Param))
        self.step, self.update = 0, jax.jit(self._update)
        self._optimizer = optax.with_extra_args_support(optimizer)

    def _update(self, state, opt_state, x, y, step):
        graph = nnx.graphdef(self.model)

        def loss_of(params):
            rngs = nnx.Rngs(jax.random.fold_in(jax.random.key(SEED), step))
            _, rest = nnx.split_state(state, nnx.Param, ...)
            model = nnx.merge(graph, params, rest, copy=True)
            loss = jnp.mean((apply(model, rngs, x) - y) ** 2)
            return loss, nnx.state(model, nnx.Not(nnx.Param))

        params = nnx.filter_state(state, nnx.Param)
        (loss, rest), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = self._optimizer.update(grads, opt_state, params, value=loss)
        return loss, nnx.merge_state(optax.apply_updates(params, updates), rest), opt_state

    def train(self, until):
        losses = []
        with jax.enable_x64(True):
            while self.step < until:
                x, y = INPUTS[self.step], TARGETS[self.step]
                state = nnx.state(self.model)
                loss, state, self.state = self.update(state, self.state, x, y, self.step)
                nnx.update(self.model, state)
                losses.append(float(loss))
                self.step += 1
        return losses

    def save(self, folder):
        swap.save_handover(folder, self.model, self.state, step=self.step, seed=SEED)

    def load(self, folder):
        with jax.enable_x64(True):
            optimizer = nnx.Optimizer(self.model, self._optimizer, wrt=nnx.Param)
            found = swap.load_handover(folder, self.model, optimizer)
        leaves = jax.tree.leaves(found.optimizer.opt_state)
        self.step, self.state = (
            found.step,
            jax.tree.unflatten(jax.tree.structure(self.state), leaves),
        )
        assert found.seed == SEED

    def weights(self):
        return bridge.state_dict(self.model)


class TorchScript:
    """The loop of somebody who trains a torch model."""

    def __init__(self, method, seed=0):
        self.model, self.method, self.step = _torch_model(seed), method, 0
        self.optimizer, self.scheduler = method.torch(list(self.model.parameters()))

    def train(self, until):
        losses = []
        while self.step < until:
            x, y = torch.tensor(INPUTS[self.step]), torch.tensor(TARGETS[self.step])
            self.optimizer.zero_grad()
            with replay(fold_in(key(SEED), self.step)):
                loss = torch.mean((self.model(x) - y) ** 2)
            loss.backward()
            if self.method.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.method.clip_norm)
            if self.method.clip_value is not None:
                torch.nn.utils.clip_grad_value_(self.model.parameters(), self.method.clip_value)
            self.optimizer.step()
            if self.method.schedule == "reduce_lr_on_plateau":
                self.scheduler.step(loss.item())
            elif self.scheduler is not None:
                self.scheduler.step()
            losses.append(loss.item())
            self.step += 1
        return losses

    def save(self, folder):
        options = {"step": self.step, "seed": SEED, "scheduler": self.scheduler}
        swap.save_handover(folder, self.model, self.optimizer, **options)

    def load(self, folder):
        options = {"scheduler": self.scheduler}
        found = swap.load_handover(folder, self.model, self.optimizer, **options)
        assert (found.seed, found.optimizer) == (SEED, self.optimizer)
        self.step = found.step

    def weights(self):
        return {name: value.numpy() for name, value in self.model.state_dict().items()}


def _require_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        gap = np.abs(value - other[name]).max()
        assert gap <= TOLERANCE * np.abs(other[name]).max(), name


def _compare(tmp_path, begin_flax, begin_torch):
    """Both that never change, and both that change in the middle: four equal curves."""
    whole = begin_flax(0), begin_torch(0)
    curves = [one.train(STEPS) for one in whole]
    for number, (begin, end) in enumerate([(begin_flax, begin_torch), (begin_torch, begin_flax)]):
        first, second = begin(0), end(1)  # the second begins elsewhere
        losses = first.train(STEPS // 2)
        first.save(tmp_path / str(number))
        second.load(tmp_path / str(number))
        curves.append(losses + second.train(STEPS))
        _require_same(second.weights(), whole[0].weights())
    _require_same(whole[1].weights(), whole[0].weights())
    for curve in curves[1:]:
        np.testing.assert_allclose(curve, curves[0], rtol=TOLERANCE)
    assert len(set(curves[0])) == STEPS


@pytest.mark.parametrize("name", METHODS)
def test_methods(tmp_path, name):
    """Three steps in one backend and three in the other, with every optimizer and schedule."""
    method = METHODS[name]
    _compare(
        tmp_path,
        _sharing(lambda seed: FlaxScript(method.flax(), seed)),
        lambda seed: TorchScript(method, seed),
    )


@pytest.mark.parametrize(
    ("optimizer", "method"),
    [
        (optax.adam(0.01), Method("adam", {"lr": 0.01})),
        (optax.adamw(0.01, weight_decay=0.1), Method("adamw", {"lr": 0.01, "weight_decay": 0.1})),
        (optax.sgd(0.1, momentum=0.9), Method("sgd", {"lr": 0.1, "momentum": 0.9})),
        (
            optax.adam(schedules.linear_lr(0.02, 1.0, 0.5, 4)),  # optax's own is in float32
            Method(
                "adam",
                {"lr": 0.02},
                schedule="linear_lr",
                schedule_options={"start_factor": 1.0, "end_factor": 0.5, "total_iters": 4},
            ),
        ),
    ],
    ids=["adam", "adamw", "sgd", "adam with a schedule"],
)
def test_optax(tmp_path, optimizer, method):
    """Optax's own optimizers go on where torch's stopped, and the other way round."""
    _compare(
        tmp_path,
        _sharing(lambda seed: FlaxScript(optimizer, seed)),
        lambda seed: TorchScript(method, seed),
    )


def _sharing(begin):
    """Scripts of one kind, of which the first compiles for all."""
    compiled = []

    def share(seed):
        script = begin(seed)
        compiled.append(script.update)
        script.update = compiled[0]
        return script

    return share


class Two(nnx.Module):
    """Two parts with an optimizer each."""

    def __init__(self, seed):
        rngs = nnx.Rngs(seed)
        self.one = layers.Linear(2, 3, rngs=rngs)
        self.two = layers.Linear(3, 2, rngs=rngs)


class TorchTwo(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one = torch.nn.Linear(2, 3)
        self.two = torch.nn.Linear(3, 2)


def _torch_two():
    """After a step, with noise for gradients."""
    model = TorchTwo()
    parts = {
        "one": torch.optim.Adam(model.one.parameters(), lr=0.1),
        "two": torch.optim.SGD(model.two.parameters(), lr=0.1, momentum=0.9),
    }
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    for optimizer in parts.values():
        optimizer.step()
    return model, parts


def _flax_two(seed=0):
    model = Two(seed)
    made = {"one": optimizers.adam(0.1), "two": optimizers.sgd(0.1, momentum=0.9)}
    parts = {
        name: nnx.Optimizer(getattr(model, name), optimizer, wrt=nnx.Param)
        for name, optimizer in made.items()
    }
    return model, parts


def test_parts(tmp_path):
    """Optimizers of parts, on the Flax side `nnx.Optimizer`s: from torch and back, bit by bit."""
    model, parts = _torch_two()
    swap.save_handover(tmp_path / "a", model, parts, step=1)
    ours, flax_parts = _flax_two()
    found = swap.load_handover(tmp_path / "a", ours, flax_parts)
    assert found.optimizer["one"] is flax_parts["one"]
    assert int(flax_parts["one"].step[...]) == 1
    swap.save_handover(tmp_path / "b", ours, flax_parts, step=1)
    first, second = (handover.read(tmp_path / name) for name in "ab")
    for one, other in [(first.weights, second.weights)] + [
        (first.optimizers[part].slots, second.optimizers[part].slots) for part in parts
    ]:
        assert one.keys() == other.keys()
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name])
    assert "one.weight.exp_avg" in first.optimizers["one"].slots
    assert (tmp_path / "a" / "optimizer.two.safetensors").exists()


PLATEAU = torch.optim.lr_scheduler.ReduceLROnPlateau


def _flax_whole(optimizer):
    model = Two(1)
    return model, nnx.Optimizer(model, optimizer, wrt=nnx.Param)


def _torch_whole(create, **options):
    model = TorchTwo()
    return model, create(model.parameters(), lr=0.1, **options)


# By name: a model and its optimizer in torch, what schedules it, and the same in Flax.
PAIRS = {
    "sgd": (
        lambda: _torch_whole(torch.optim.SGD, momentum=0.9),
        lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2),
        lambda: _flax_whole(optimizers.sgd(schedules.step_lr(0.1, 2), momentum=0.9)),
    ),
    "nadam": (
        lambda: _torch_whole(torch.optim.NAdam),
        lambda optimizer: None,
        lambda: _flax_whole(optimizers.nadam(0.1)),
    ),
    "plateau": (
        lambda: _torch_whole(torch.optim.Adam),
        PLATEAU,
        lambda: _flax_whole(optax.chain(optimizers.adam(1.0), schedules.reduce_lr_on_plateau(0.1))),
    ),
    "parts": (_torch_two, lambda parts: {}, _flax_two),
}


class TorchSide:
    """A model, its optimizer and its schedule in torch."""

    def __init__(self, name):
        begin, self.schedule, _ = PAIRS[name]
        self.model, self.optimizer = begin()
        self.scheduler = self.schedule(self.optimizer)

    def step(self):
        for parameter in self.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        for optimizer in script._by_part(self.optimizer).values():
            optimizer.step()
        if self.scheduler:
            self.scheduler.step(*[1.0] * isinstance(self.scheduler, PLATEAU))

    def load(self, folder):
        self.scheduler = self.schedule(self.optimizer)
        before = self.bits()
        try:
            return swap.load_handover(folder, self.model, self.optimizer, scheduler=self.scheduler)
        except Exception:
            assert self.bits() == before
            raise

    def save(self, folder, step):
        swap.save_handover(
            folder, self.model, self.optimizer, step=step, seed=3, scheduler=self.scheduler
        )

    def bits(self):
        parts = script._by_part(self.optimizer).values()
        told = [self.model.state_dict(), *(part.state_dict() for part in parts)]
        told += [self.scheduler.state_dict()] if self.scheduler else []
        return jax.tree.map(lambda x: x.tolist() if torch.is_tensor(x) else copy.copy(x), told)


class FlaxSide:
    """The same in Flax."""

    def __init__(self, name):
        self.model, self.optimizer = PAIRS[name][2]()

    def load(self, folder):
        before = self.bits()
        try:
            return swap.load_handover(folder, self.model, self.optimizer)
        except Exception:
            assert self.bits() == before
            raise

    def save(self, folder, step):
        options = {"lr": 0.1}
        options = (
            dict.fromkeys(self.optimizer, options) if type(self.optimizer) is dict else options
        )
        swap.save_handover(folder, self.model, self.optimizer, step=step, seed=3, options=options)

    def bits(self):
        parts = script._by_part(self.optimizer).values()
        leaves = jax.tree.leaves([nnx.state(self.model), *map(nnx.state, parts)])
        return [np.asarray(leaf).tolist() for leaf in leaves]


STATE = Handover(
    step=2,
    seed=3,
    weights={"w": np.ones((2, 3))},
    average={"w": np.zeros((2, 3))},
    optimizers={
        "": OptimizerState(
            name="adam",
            step=2,
            scheduled=1,
            slots={"w.step": np.array(2, np.float32), "w.exp_avg": np.ones((2, 3))},
            groups=[{"names": ["w"], "lr": 0.1, "betas": [0.9, 0.99]}],
        )
    },
    run={"architecture": "none"},
)


def test_round_trip(tmp_path):
    """What is read is what was written."""
    handover.write(tmp_path / "there", STATE)
    found = handover.read(tmp_path / "there")
    pairs = [(found.weights, STATE.weights), (found.average, STATE.average)]
    pairs.append((found.optimizers[""].slots, STATE.optimizers[""].slots))
    for one, other in pairs:
        assert one.keys() == other.keys()
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name], strict=True)
    own, other = (vars(state.optimizers[""]) | {"slots": None} for state in (found, STATE))
    assert own == other
    for name in ("step", "seed", "run"):
        assert getattr(found, name) == getattr(STATE, name)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def _record(folder):
    return json.loads((folder / "handover.json").read_text())


def _edit(folder, **changes):
    (folder / "handover.json").write_text(json.dumps(_record(folder) | changes))


BROKEN = {
    "holds no handover: handover.json: No such file": lambda f: (f / "handover.json").unlink(),
    "handover.json: not JSON: EOF": lambda f: (f / "handover.json").write_text("{"),
    "handover.json has format 2; this version reads 1": lambda f: _edit(f, format=2),
    "lacks the digests of model.safetensors, optimizer.safetensors": lambda f: _edit(f, digests={}),
    r"has digests of ../x, which it says nothing of": lambda f: _edit(
        f, digests=_record(f)["digests"] | {"../x": ""}
    ),
    r"handover.json: should be an object, not \[\]": lambda f: (f / "handover.json").write_text(
        "[]"
    ),
    "handover.json: step should be greater than or equal to 0, not -1": lambda f: _edit(f, step=-1),
    "handover.json: step should be less than or equal to 2147483647, not 118": lambda f: _edit(
        f, step=2**70
    ),
    "handover.json: more is unknown": lambda f: _edit(f, more=1),
    "handover.json: not JSON: recursion limit exceeded": lambda f: (f / "handover.json").write_text(
        "[" * 10**5
    ),
    "handover.json: a link that leads out of the folder": lambda f: (
        (f / "handover.json").rename(f.parent / "elsewhere"),
        (f / "handover.json").symlink_to("../elsewhere"),
    ),
    "model.safetensors cannot be read: no plain file": lambda f: (
        (f / "model.safetensors").unlink(),
        os.mkfifo(f / "model.safetensors"),
    ),
    "optimizer.safetensors cannot be read: No such": lambda f: (
        f / "optimizer.safetensors"
    ).unlink(),
    "model.safetensors is not as it was written": lambda f: bridge.write(
        {"w": np.zeros(1)}, f / "model.safetensors"
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken(tmp_path, message):
    """A folder that is damaged, and what is said of it, in one line."""
    handover.write(tmp_path / "there", STATE)
    BROKEN[message](tmp_path / "there")
    with pytest.raises(HandoverError, match=message) as caught:
        handover.read(tmp_path / "there")
    assert str(tmp_path / "there") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Handovers after two steps, by the name of the pair and the side that wrote them."""
    found = {}
    for name in PAIRS:
        first, second = TorchSide(name), FlaxSide(name)
        for _ in range(2):
            first.step()
        for side in (first, second):
            folder = tmp_path_factory.mktemp(name) / "there"
            side.save(folder, 2)
            found[f"{name} of {type(side).__name__}"] = folder
            second.load(folder)
    return found


def _own(record, **changes):
    """A record with changes of its only optimizer."""
    return record | {"optimizers": {"": record["optimizers"][""] | changes}}


def _plateau(record, **changes):
    return _own(record, plateau=record["optimizers"][""]["plateau"] | changes)


def _group(record, **changes):
    (group,) = record["optimizers"][""]["groups"]
    return _own(record, groups=[group | changes])


# What is wrong, by what is said of it: which handover, and how its record or a file differs.
WRONG = {
    "step should be greater than or equal to 0, not -1": ("nadam", lambda r: r | {"step": -1}),
    r"step should be less than or equal to 2147483647": ("nadam", lambda r: _own(r, step=2**70)),
    "the slots are after 2 steps, not 3": ("nadam", lambda r: _own(r, step=3)),
    'plateau.lr.float should be a valid number, not "a"': (
        "plateau",
        lambda r: _plateau(r, lr="a"),
    ),
    "plateau.lr.list[float] List should have at least 1 item": (
        "plateau",
        lambda r: _plateau(r, lr=[]),
    ),
    r"the plateau has 3 rates, not 1": ("plateau", lambda r: _plateau(r, lr=[0.1, 0.2, 0.3])),
    "plateau.cooldown_counter is missing": ("plateau", lambda r: _own(r, plateau={"best": 0.1})),
    'should have "names", a list of texts': ("sgd", lambda r: _own(r, groups=[{"lr": 0.1}])),
    'should have a finite number as "lr"': ("sgd", lambda r: _group(r, lr="much")),
    "param_groups": ("sgd", lambda r: _group(r, names=["one.weight", "nobody"])),
    "exp_avg of one.weight has shape (), not (3, 2)": (
        "nadam",
        {"one.weight.exp_avg": np.ones(())},
    ),
    "step of one.weight has shape (3, 2), not ()": ("nadam", {"one.weight.step": np.ones((3, 2))}),
    "step of one.bias has shape (1, 1, 1), not ()": (
        "nadam",
        {"one.bias.step": np.ones((1, 1, 1))},
    ),
    "step of one.bias has dtype bool, which is not real": (
        "nadam",
        {"one.bias.step": np.array(True)},
    ),
    "step -1 is no count": ("nadam", {"one.bias.step": np.array(-1.0)}),
    "step 3e+09 is no count": ("nadam", {"one.bias.step": np.array(3e9)}),
    "mu_product of two.bias has shape (2,), not ()": (
        "nadam",
        {"two.bias.mu_product": np.ones(2, np.float32)},
    ),
    "momentum_buffer of one.bias has dtype float64, not float32": (
        "sgd",
        {"one.bias.momentum_buffer": np.ones(3)},
    ),
    "unexpected exp_avg of one.bias": ("sgd", {"one.bias.exp_avg": np.ones(3, np.float32)}),
}


def _wronged(folder, changes):
    """A folder whose record or slots are changed, these with the digest that they should have."""
    record = _record(folder)
    if callable(changes):
        record = changes(record)
    else:
        slots = bridge.read(folder / "optimizer.safetensors") | changes
        bridge.write(slots, folder / "optimizer.safetensors")
        digest = handover._digest(folder / "optimizer.safetensors")
        record["digests"]["optimizer.safetensors"] = digest
    (folder / "handover.json").write_text(json.dumps(record))


@pytest.mark.parametrize("side", [TorchSide, FlaxSide])
@pytest.mark.parametrize("said", WRONG)
def test_nothing_changes(tmp_path, written, said, side):
    """What is wrong is said in a line, and weights, moments, steps and rates stay to the bit."""
    name, changes = WRONG[said]
    ours = side(name)
    if side is TorchSide:  # before its first step torch remembers nothing
        ours.step()
    shutil.copytree(written[f"{name} of TorchSide"], tmp_path / "there")
    _wronged(tmp_path / "there", changes)
    with pytest.raises(HandoverError, match=re.escape(said)) as caught:
        ours.load(tmp_path / "there")  # which compares all bits
    assert "\n" not in str(caught.value)


def test_schedule_of_another_length(tmp_path, written):
    """A scheduler that does not go so far is found out before anything is changed."""
    shutil.copytree(written["nadam of TorchSide"], tmp_path / "there")
    _wronged(tmp_path / "there", lambda record: _own(record, scheduled=7))
    ours = TorchSide("nadam")
    ours.schedule = lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.1, total_steps=3, cycle_momentum=False
    )
    with pytest.raises(HandoverError, match="OneCycleLR does not take 7 steps: Tried to step 4"):
        ours.load(tmp_path / "there")


def test_more_than_float32_holds(tmp_path, written):
    """A rate of torch's, which is a float64, that has no place in the state of optax."""
    shutil.copytree(written["plateau of TorchSide"], tmp_path / "there")
    _wronged(tmp_path / "there", lambda record: _plateau(record, lr=1e39))
    with pytest.raises(HandoverError, match=r"1e\+39 of the plateau is more than float32 holds"):
        FlaxSide("plateau").load(tmp_path / "there")


def test_written_as_it_is_read(tmp_path):
    """What could not be read again is not written."""
    model, optimizer = _torch_whole(torch.optim.SGD)
    for step, seed, said in [(-1, 0, "step -1 is not between"), (0, 2**70, "seed should be less")]:
        with pytest.raises(HandoverError, match=said):
            swap.save_handover(tmp_path / "there", model, optimizer, step=step, seed=seed)
    optimizer.param_groups[0]["lr"] = float("inf")
    with pytest.raises(HandoverError, match="Out of range float values are not JSON compliant"):
        swap.save_handover(tmp_path / "there", model, optimizer, step=0)
    assert not list(tmp_path.iterdir())


def _require_as_written(folder, side, loaded):
    """What was taken over is what the folder holds."""
    found = handover.read(folder)
    assert (loaded.step, loaded.seed) == (found.step, found.seed)
    side.save(folder.parent / "again", found.step)
    again = handover.read(folder.parent / "again")
    shutil.rmtree(folder.parent / "again")
    assert again.optimizers.keys() == found.optimizers.keys()
    pairs = [(found.weights, again.weights)]
    for part, told in found.optimizers.items():
        pairs.append((told.slots, again.optimizers[part].slots))
        if isinstance(side, FlaxSide) or told.name != "sgd":  # whose steps torch does not count
            assert told.step == again.optimizers[part].step
    for one, other in pairs:
        assert one.keys() == other.keys()
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name])


DTYPES = ["float32", "float64", "float16", "int32", "int64", "uint8", "bool"]


def _cast(value, dtype):
    with np.errstate(over="ignore", invalid="ignore"):
        return np.nan_to_num(value.astype(dtype))  # finite, as files have to be


@st.composite
def _other_arrays(draw, files):
    """A file of a handover with one to three of its arrays removed, renamed or of another kind."""
    file = draw(st.sampled_from(sorted(files)))
    arrays = dict(files[file])
    for _ in range(draw(st.integers(1, 3))):
        names = sorted(arrays) or ["x"]
        name = draw(st.sampled_from(names))
        value = arrays.pop(name, np.ones(1))
        kind = draw(st.sampled_from(["remove", "rename", "shape", "dtype", "value", "another"]))
        if kind == "rename":
            name = draw(st.sampled_from(["", ".", "x", "one.weight", f"{name}.step", f"x{name}"]))
        elif kind == "shape":
            shape = draw(st.sampled_from([(), (0,), (1,), (2,), (3, 2), (2, 3), (1, 1, 1)]))
            value = np.resize(value, shape)
        elif kind == "dtype":
            value = _cast(value, draw(st.sampled_from(DTYPES)))
        elif kind == "value":
            given = draw(st.sampled_from([-1.0, 0.0, 0.5, 3.0, 2.0**24, 3e9, 1e30]))
            value = _cast(np.full(value.shape, given), value.dtype)
        elif kind == "another":
            value = draw(st.sampled_from(list(files[file].values()) or [value]))
        if kind != "remove":
            arrays[name] = value
    return file, arrays


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("kind", ["records", "arrays"])
def test_any_handover(tmp_path, written, kind, name, attack):
    """Mutated in structure: both sides take over what is written, or say why not and stay."""
    sides = [TorchSide(name), FlaxSide(name)]
    bases = [folder for key, folder in written.items() if key.startswith(f"{name} ")]
    files = {path.name: bridge.read(path) for path in bases[0].glob("*.safetensors")}

    def check(drawn):
        base, record, changed = drawn
        folder = tmp_path / "there"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, folder)
        if record is not None:
            (folder / "handover.json").write_text(record)
        else:
            file, arrays = changed
            bridge.write(arrays, folder / file)
            digests = _record(folder)["digests"] | {file: handover._digest(folder / file)}
            _edit(folder, digests=digests)
        for side in sides:
            with one_line(HandoverError):
                loaded = side.load(folder)
                _require_as_written(folder, side, loaded)

    records = st.one_of(
        *(st.tuples(st.just(base), mutated(_record(base)), st.none()) for base in bases)
    )
    arrays = st.tuples(st.sampled_from(bases), st.none(), _other_arrays(files))
    strategy = records if kind == "records" else arrays
    attack(f"handover, {kind}", strategy, check, 40)


def test_whole_or_absent(tmp_path, monkeypatch):
    """A write that fails in its middle leaves nothing; a folder in use keeps what it holds."""
    written = []

    def failing(arrays, path):
        assert not (tmp_path / "there").exists()  # what a kill would leave is not in its place
        if written:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        path.write_bytes(b"x")

    with monkeypatch.context() as patched:
        patched.setattr(bridge, "write", failing)
        with pytest.raises(OSError, match="No space left"):
            handover.write(tmp_path / "there", STATE)
    assert not list(tmp_path.iterdir())
    bad = Handover(step=1, weights={"w": np.full(1, np.nan)}, optimizers={})
    with pytest.raises(HandoverError, match=f"{tmp_path}/bad/model.safetensors: NaN or infinity"):
        handover.write(tmp_path / "bad", bad)
    assert not list(tmp_path.iterdir())
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(HandoverError, match="is there and not empty; choose another folder"):
        handover.write(tmp_path, STATE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_without_torch():
    """The neutral form and its Flax side are imported where torch is not installed."""
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['torch'] = None; from flaxnets.swap import save_handover, "
        "load_handover; import flaxnets.swap.handover_flax"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
