"""Training that changes the backend goes on as training that never did, from one folder."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

from flaxnets import bridge, layers, swap
from flaxnets.bridge.convert import in_dtype
from flaxnets.parity.trajectory import METHODS, Method
from flaxnets.swap import handover
from flaxnets.swap.handover import Handover, HandoverError, OptimizerState
from flaxnets.training import optimizers, schedules
from flaxnets.training.objectives import apply
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
        found = swap.load_handover(folder, self.model, self.state)
        self.step, self.state = found.step, found.optimizer
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


def _edit(folder, **changes):
    record = json.loads((folder / "handover.json").read_text())
    (folder / "handover.json").write_text(json.dumps(record | changes))


BROKEN = {
    "holds no handover: handover.json: No such file": lambda f: (f / "handover.json").unlink(),
    "handover.json is broken: Expecting": lambda f: (f / "handover.json").write_text("{"),
    "handover.json has format 2; this version reads 1": lambda f: _edit(f, format=2),
    "handover.json is broken: 'model.safetensors'": lambda f: _edit(f, digests={}),
    "handover.json is broken: list indices": lambda f: (f / "handover.json").write_text("[]"),
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
