"""A training run leaves its files behind, and they hold what was trained."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

import flaxnets
from flaxnets import bridge, data, specs, swap, training
from flaxnets.edge.structure import StructureError
from flaxnets.experiment import run
from flaxnets.experiment.recipe import Recipe
from flaxnets.experiment.run import train
from flaxnets.experiment.session import Place, Session, StoppedError
from flaxnets.experiment.torch_engine import TorchEngine
from flaxnets.tasks import evaluate
from flaxnets.training.checkpoints import CheckpointError
from flaxnets.training.loop import TrainingError
from parity_tests import fuzz

SPEC = flaxnets.spec("lenet", image_size=16)
RECIPE = Recipe(data="digits", steps=30, batch_size=32, lr=3e-3)
LOAD = data.load
PACKAGED = functools.cache(LOAD)


@pytest.fixture(autouse=True)
def _read_once(monkeypatch):
    """What comes with a package is read by the first run that asks for it."""

    def load(name, folder=None, *limit):
        return LOAD(name, folder, *limit) if folder else PACKAGED(name, None, *limit)

    monkeypatch.setattr(data, "load", load)


@pytest.fixture
def undrawn(monkeypatch):
    """Runs leave no pictures, which take longer than a few steps."""
    monkeypatch.setattr(run, "_draw", lambda spec, outcome: None)


@pytest.mark.parametrize("backend", ["flax", "torch"])
def test_files(tmp_path, backend):
    """Spec, a line a step, and weights that give the same predictions in Flax."""
    recipe = Recipe(**{**vars(RECIPE), "backend": backend})
    outcome = train(SPEC, recipe, tmp_path / "run")
    spec = specs.from_json((tmp_path / "run" / "spec.json").read_text())
    assert spec == SPEC
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines] == [*range(1, 31), 30]
    assert lines[-1] == {"step": 30, **outcome.figures}
    assert outcome.losses[-1] < outcome.losses[0]
    model = flaxnets.build(spec, seed=9)
    bridge.load(model, tmp_path / "run" / "model.safetensors")
    outputs = training.predict(model, outcome.inputs)
    np.testing.assert_allclose(outputs, outcome.outputs, rtol=1e-4, atol=1e-5)
    assert outcome.figures["test_accuracy"] == np.mean(outputs.argmax(-1) == outcome.targets)


def test_repeatable(tmp_path, undrawn):
    """The same seed gives the same run, bit for bit."""
    first, second = (train(SPEC, RECIPE, tmp_path / name) for name in "ab")
    assert first.losses == second.losses
    weights = [bridge.read(tmp_path / name / "model.safetensors") for name in "ab"]
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][name])


def test_folder_in_use(tmp_path):
    """A folder that holds something is refused, and keeps it."""
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(TrainingError, match="is there and not empty; choose another"):
        train(SPEC, RECIPE, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_too_many_classes(tmp_path):
    """Labels that the network has no output for are refused before anything is written."""
    spec = flaxnets.spec("lenet", image_size=16, num_classes=4)
    with pytest.raises(data.DataError, match="digits has 10 classes but num_classes is 4"):
        train(spec, RECIPE, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Smaller than the default, or as large as the data want it.
LAYERS = {"num_encoder_layers": 1, "num_decoder_layers": 1}
TINY = {
    "autoencoder": {},
    "bert": {
        "hidden_size": 6,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "max_position_embeddings": 32,
        "vocab_size": 2000,
    },
    "char_rnn": {"hidden_size": 5},
    "conv_autoencoder": {"in_shape": (1, 8, 8)},
    "conv_net": {"image_size": 12},
    "feedforward": {},
    "gan": {"in_shape": (1, 8, 8), "width": 2},
    "image_autoencoder": {"in_shape": (1, 8, 8)},
    "lenet": {"image_size": 16},
    "linear_network": {},
    "lstm_tagger": {"embedding_dim": 3, "hidden_dim": 4},
    "mlp": {"in_features": 64},
    "rnn": {"input_size": 4, "hidden_size": 5},
    "seq2seq": {"embedding_dim": 4, "hidden_size": 5},
    "seq2seq_transformer": {"emb_size": 6, "nhead": 2, "dim_feedforward": 7, **LAYERS},
    "transformer": {"d_model": 6, "nhead": 2, "dim_feedforward": 7, **LAYERS},
    "transformer_decoder": {"d_model": 6, "nhead": 2, "dim_feedforward": 7, "num_layers": 1},
    "transformer_encoder": {"d_model": 6, "nhead": 2, "dim_feedforward": 7, "num_layers": 1},
    "vae": {"in_shape": (1, 8, 8)},
}


@pytest.mark.parametrize("name", flaxnets.names())
def test_every_architecture_trains(tmp_path, name):
    """Five steps of every network on its own kind of data, to the last file, in both backends.

    Both begin with the same weights and meet the same batches and random numbers, so that the
    losses differ by float32 rounding, which five steps of Adam make a thousand times as large.
    """
    spec = flaxnets.spec(name, **TINY.get(name, {}))
    images = spec.examples(1)[0].axes == "bhwc" or name in ("feedforward", "mlp")
    data = "digits" if images else None
    ours, theirs = (
        train(
            spec,
            Recipe(backend=backend, data=data, steps=5, steps_per_dispatch=1),
            tmp_path / backend,
        )
        for backend in ("flax", "torch")
    )
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-4)
    series = spec.examples(1)[0].axes == "btf"
    wanted = {
        "classification": {"confusion.png"},
        "regression": {"forecast.png"} if series else set(),
        "reconstruction": {"reconstructions.png"} if images else set(),
        "vae": {"reconstructions.png", "samples.png"},
        "gan": {"samples.png"},
    }
    reads = spec.data in ("surnames", "english-tags", "dates", "python-docs")
    for outcome in (ours, theirs):
        assert len(outcome.losses) == 5
        assert np.isfinite(outcome.losses).all()
        assert all(map(np.isfinite, outcome.figures.values()))
        assert bridge.read(outcome.out / "model.safetensors").keys()
        pictures = {path.name for path in outcome.out.glob("*.png")}
        assert pictures == {"loss.png"} | wanted.get(spec.task, set())
        assert (outcome.out / "examples.txt").exists() == reads == bool(outcome.examples)
        assert "</html>" in (outcome.out / "report.html").read_text()


def test_nothing_is_promoted(strict):
    """The fixture asks of JAX what a strict user asks: dtypes and ranks meet as they are."""
    with pytest.raises(jax.dtypes.TypePromotionError, match="strict"):
        jnp.ones(2) + jnp.ones(2, jnp.int32)
    with pytest.raises(ValueError, match="jax_numpy_rank_promotion='raise'"):
        jnp.ones(2) + jnp.ones((2, 2))


def test_strict_user(tmp_path, undrawn):
    """Who forbids implicit promotion of dtypes and ranks trains as everybody does."""
    strict = {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise"}
    command = [sys.executable, "-m", "flaxnets", "train", "mlp"]
    command += ["--in-features", "64", "--data", "digits", "--steps", "2"]
    command += ["--out", tmp_path / "strict"]
    subprocess.run(command, env=os.environ | strict, check=True)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        usual = Recipe(data="digits", steps=2)
        train(flaxnets.spec("mlp", in_features=64), usual, tmp_path / "usual")
    weights = [bridge.read(tmp_path / name / "model.safetensors") for name in ("strict", "usual")]
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][name])


def test_trace_and_events(tmp_path, undrawn):
    """A run leaves a trace of its steps and event files where asked to, and says what it took."""
    spec = flaxnets.spec("transformer", **TINY["transformer"])
    place = Place(profile=True, tensorboard=True)
    train(spec, Recipe(steps=30, steps_per_dispatch=1), tmp_path / "run", place)
    (trace,) = (tmp_path / "run" / "profile").rglob("*.xplane.pb")
    assert b"jit_pure" in trace.read_bytes()  # the step by its name
    (events,) = (tmp_path / "run" / "tensorboard").rglob("events.out.tfevents.*")
    assert events.read_bytes().count(b"loss") >= 30
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["attention"] == ["xla"]
    assert facts["engine"] == {"dispatch": [1, "single"]}


@pytest.mark.parametrize("name", ["vae", "lstm_tagger"])
def test_bfloat16(tmp_path, undrawn, name):
    """In bfloat16 both backends learn the same, and about what they learn in float32.

    A probability that rounds to 1 costs much where it is wrong: the first loss is 8 % larger.
    """
    spec = flaxnets.spec(name, **TINY[name])
    data = "digits" if name == "vae" else None
    exact, *narrow = (
        train(spec, Recipe(data=data, steps=5, **options), tmp_path / str(number)).losses
        for number, options in enumerate(
            [{}, {"precision": "bfloat16"}, {"precision": "bfloat16", "backend": "torch"}]
        )
    )
    np.testing.assert_allclose(*narrow, rtol=0.03)
    for losses in narrow:
        np.testing.assert_allclose(losses, exact, rtol=0.1)
        assert losses != exact


def test_early_stopping(tmp_path, undrawn):
    """A run without a better figure ends early, with the weights of the best evaluation."""
    recipe = Recipe(data="digits", steps=40, lr=1e-9, eval_every=5, patience=2, batch_size=32)
    outcome = train(SPEC, recipe, tmp_path / "run")
    assert len(outcome.losses) == 15  # the first figure, and two that are no better
    assert outcome.step == 5
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "eval_accuracy" in line] == [5, 10, 15]
    assert lines[-1]["step"] == 5


def test_nothing_to_train_towards(tmp_path):
    """A network that is only a part of others is refused by name."""
    with pytest.raises(TrainingError, match="bert: BertModel has nothing that it is trained tow"):
        train(flaxnets.spec("bert", "tiny_model"), RECIPE, tmp_path / "run")


def test_backends_learn_alike(tmp_path, undrawn):
    """A linear network learns to read three bits, in both backends."""
    for backend in ("flax", "torch"):
        recipe = Recipe(backend=backend, steps=300, lr=0.02)
        outcome = train(flaxnets.spec("linear_network"), recipe, tmp_path / backend)
        assert outcome.figures["test_accuracy"] == 1


def test_regression(tmp_path, undrawn):
    """Two sums of bits are linear, and are found."""
    spec = flaxnets.spec("linear_network", "regression")
    outcome = train(spec, Recipe(steps=500, lr=0.02), tmp_path / "run")
    assert outcome.figures["test_mae"] < 0.05


def test_denoising(tmp_path, undrawn):
    """Noise is added to what the network sees, not to what it is judged by."""
    spec = flaxnets.spec("image_autoencoder", in_shape=(1, 8, 8))
    clean, noisy = (
        train(spec, Recipe(data="digits", steps=5, noise=noise), tmp_path / str(noise)).losses
        for noise in (0.0, 0.5)
    )
    assert clean[0] != noisy[0]


@pytest.mark.parametrize(
    ("name", "recipe", "wanted"),
    [
        ("mlp", {"data": "fashion-mnist"}, (900, 1000, 0.01, None)),
        ("mlp", {"data": "fashion-mnist", "steps": 7}, (7, 1000, 0.01, None)),
        ("mlp", {"data": "fashion-mnist", "optimizer": "sgd"}, (900, 1000, 1e-3, None)),
        ("mlp", {}, (500, 64, 1e-3, None)),
        ("gan", {}, (500, 64, 1e-3, (0.5, 0.999))),
        ("gan", {"lr": 0.1}, (500, 64, 0.1, (0.5, 0.999))),
        ("gan", {"epochs": 2}, (1874, 64, 1e-3, (0.5, 0.999))),
    ],
)
def test_recipes(name, recipe, wanted):
    """The user's word counts first, then the network's own, then the common default."""
    settled = Recipe(**recipe).settled(flaxnets.spec(name), 60_000)
    assert (settled.steps, settled.batch_size, settled.lr, settled.betas) == wanted


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "steps 0 is too small"),
        ({"batch_size": 0}, "batch_size 0 is too small"),
        ({"steps": 1, "epochs": 1}, "steps 1 and epochs 1: give one of them"),
        ({"lr": float("nan")}, "lr nan is not a positive number"),
        ({"noise": -1.0}, "noise -1.0 is not 0 or a positive number"),
        (
            {"betas": (0.5, 0.9), "optimizer": "sgd"},
            "are of adam, adamw, adamax, nadam, radam, not of sgd",
        ),
    ],
)
def test_wrong_recipe(fields, message):
    """Each mistake is named."""
    with pytest.raises(TrainingError, match=message):
        Recipe(**fields)


@pytest.mark.parametrize(
    ("name", "data_name", "message"),
    [
        ("lenet", "diabetes", "lenet is trained towards labels, which diabetes lacks"),
        ("mlp", "binary", "rows of 3 features do not fit an input bf"),
        ("autoencoder", "binary", "rows of 3 features do not fit an input bf"),
        ("vae", "binary", "rows of 3 features do not fit an input bhwc"),
    ],
)
def test_data_does_not_fit(tmp_path, name, data_name, message):
    """Data of another kind is refused before anything is written."""
    with pytest.raises(data.DataError, match=message):
        train(flaxnets.spec(name), Recipe(data=data_name), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Of every network, and what can be asked for besides: parts of batches, clipping, an average,
# a schedule whose length both know.
HANDED = {
    "lenet": {"optimizer": "sgd", "lr": 0.01, "clip_value": 0.05, "schedule": "steps"},
    "vae": {"weight_decay": 0.1, "optimizer": "nadam"},
    "lstm_tagger": {"optimizer": "radam"},
    "transformer": {
        "lr": 0.01,
        "accumulate": 2,
        "clip_norm": 0.5,
        "ema": 0.9,
        "warmup": 2,
        "schedule": "cosine",
    },
    "gan": {"accumulate": 2},
}


@pytest.mark.parametrize("name", HANDED)
def test_handed_over(tmp_path, undrawn, compiled_once, name):
    """A run that changes the backend twice equals those that never do, at every step, in float64.

    One begins in Flax and one in torch, two steps each; the weights at the end agree as well.
    """
    spec = flaxnets.spec(name, **TINY[name])
    images = spec.examples(1)[0].axes == "bhwc"
    recipe = Recipe(
        data="digits" if images else None,
        batch_size=8,
        precision="float64",
        schedule_steps=6 if "schedule" in HANDED[name] else None,
        steps_per_dispatch=1,
        **HANDED[name],
    )
    runs = {}
    for chain in (["flax"], ["torch"], ["flax", "torch", "flax"], ["torch", "flax", "torch"]):
        before = None
        for number, backend in enumerate(chain):
            asked = replace(recipe if before is None else Recipe(), backend=backend)
            out = tmp_path / "-".join(chain) / str(number)
            train(spec, replace(asked, steps=6 // len(chain)), out, Place(resume=before))
            before = out
        lines = [json.loads(line) for line in (before / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [*range(1, 7), 6]
        losses = [line["loss"] for line in lines[:-1]]
        runs["-".join(chain)] = losses, bridge.read(before / "model.safetensors")
    truth, weights = runs["flax"]
    for losses, ended in runs.values():
        np.testing.assert_allclose(losses, truth, rtol=1e-10)
        for key, value in ended.items():
            gap = np.abs(value - weights[key]).max()
            assert gap <= 1e-10 * np.abs(weights[key]).max(), key
    assert len(set(truth)) == 6


def test_killed_after_the_handover(tmp_path, undrawn, monkeypatch):
    """Killed before its first step, what was handed over goes on in its folder, bit for bit."""
    spec = flaxnets.spec("linear_network")
    recipe = Recipe(steps=3, steps_per_dispatch=1, optimizer="adam")
    train(spec, recipe, tmp_path / "a")
    place, asked = Place(resume=tmp_path / "a"), Recipe(backend="torch", steps=2)
    train(spec, asked, tmp_path / "whole", place)

    def killed(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Session, "to_the_end", killed)
        with pytest.raises(KeyboardInterrupt):
            train(spec, asked, tmp_path / "b", place)
    train(spec, Recipe(), tmp_path / "b", Place(resume=tmp_path / "b"))
    assert _without_times(tmp_path / "b") == _without_times(tmp_path / "whole")
    model = flaxnets.create("linear_network", "torch")
    optimizer = torch.optim.Adam(model.parameters())
    found = swap.load_handover(tmp_path / "b" / "handover", model, optimizer)  # by a script
    assert (found.step, found.seed, optimizer.param_groups[0]["lr"]) == (3, 0, 1e-3)
    facts = json.loads((tmp_path / "b" / "run.json").read_text())
    assert facts["backends"] == [[0, "flax"], [3, "torch"]]
    assert facts["resumed"] == [3, 3]
    with pytest.raises(TrainingError, match="has taken its 5 steps; give more with --steps"):
        train(spec, Recipe(), tmp_path / "b", Place(resume=tmp_path / "b"))


def test_data_limit(tmp_path):
    """A data set that takes more than the limit is refused before the folder is made."""
    np.savez(tmp_path / "mine.npz", inputs=np.ones((600, 3)), targets=np.arange(600) % 8)
    asked = Recipe(data_dir=tmp_path / "mine.npz", steps=1)
    with pytest.raises(
        data.DataError, match=r"28,800 bytes of memory, more than the limit of 10,737;"
    ):
        train(flaxnets.spec("linear_network"), asked, tmp_path / "a", Place(data_limit=1e-5))
    assert not (tmp_path / "a").exists()
    for wrong in (0, -1, float("nan"), float("inf"), 1e308):
        with pytest.raises(TrainingError, match=r"data_limit .* is not a positive"):
            Place(data_limit=wrong)


def _without_times(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: x for name, x in line.items() if name != "seconds"} for line in lines]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_opens_in_either_backend(tmp_path, precision):
    """What a run has left gives the same outputs as Flax and as torch, in its precision."""
    train(SPEC, replace(RECIPE, steps=2, precision=precision), tmp_path / "run")
    ours, theirs = (flaxnets.load(tmp_path / "run", backend) for backend in ("flax", "torch"))
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype(precision)
    with jax.enable_x64(True):
        output = np.asarray(ours(jax.numpy.asarray(x)))
    expected = theirs(torch.tensor(x).movedim(-1, 1)).detach().numpy()
    assert output.dtype == expected.dtype == precision
    tolerance = {"float32": 1e-5, "float64": 1e-10}[precision]
    np.testing.assert_allclose(output, expected, rtol=tolerance, atol=tolerance)


def test_opens_no_run(tmp_path):
    """A folder that is no run, and a run that has not finished, are one line each."""
    with pytest.raises(specs.SpecError, match=f"{tmp_path}/run is no run: No such file"):
        flaxnets.load(tmp_path / "run")
    (tmp_path / "spec.json").write_text(SPEC.to_json())
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(specs.SpecError) as caught:
        flaxnets.load(tmp_path, "torch")
    assert str(caught.value) == (
        f"{tmp_path} has not finished; flaxnets train lenet --resume {tmp_path}"
    )


def test_float64_on_a_tpu(tmp_path, monkeypatch):
    """A TPU, which computes no float64, is refused before anything is written."""

    class Device:
        platform, device_kind = "tpu", "TPU v5e"

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    with pytest.raises(TrainingError, match="float64 is not computed by TPU v5e; use cpu"):
        train(SPEC, replace(RECIPE, precision="float64"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Folders that somebody else has filled


@pytest.fixture
def left(tmp_path):
    """A run of two steps that may be resumed, and what it takes to do so."""
    spec, recipe = flaxnets.spec("linear_network"), Recipe(steps=2, steps_per_dispatch=1)
    train(spec, recipe, tmp_path / "run")

    def resume(out=None, steps=3, **place):
        place = Place(resume=tmp_path / "run", **place)
        return train(spec, Recipe(steps=steps), out or tmp_path / "run", place)

    return tmp_path / "run", resume


def test_damaged_line(left, capfd):
    """A damaged line of metrics is left out and told of in one line; the run goes on."""
    folder, resume = left
    path = folder / "metrics.jsonl"
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first[: len(first) // 2], b"\n", b"\xff[1]\n", *rest, b'{"step": ']))
    assert len(resume().losses) == 2
    assert capfd.readouterr().err == f"{path} is damaged and read without its lines 1, 2\n"


def test_other_data(left, monkeypatch):
    """Data that has changed is refused, unless it is asked for; what is the same goes on."""
    folder, resume = left
    loaded = data.load("binary")
    other = replace(loaded, train_inputs=1 - loaded.train_inputs)
    fewer = replace(
        loaded, test_inputs=loaded.test_inputs[1:], test_targets=loaded.test_targets[1:]
    )
    for changed in (other, fewer):
        with monkeypatch.context() as patched:
            patched.setattr(data, "load", lambda *_, changed=changed: changed)
            with (
                fuzz.untouched(folder),
                pytest.raises(TrainingError, match=r"the data of .* has ch"),
            ):
                resume()
    assert len(resume().losses) == 3
    monkeypatch.setattr(data, "load", lambda *_: other)
    assert len(resume(other_data=True, steps=4).losses) == 4


def test_checkpoints_are_gone(left):
    """A run whose checkpoints are gone does not begin anew without a word."""
    folder, resume = left
    shutil.rmtree(folder / "checkpoints")
    with fuzz.untouched(folder), pytest.raises(TrainingError, match="checkpoints is gone; begin"):
        resume()


def test_read_only_folder(left, tmp_path):
    """A run on a disk that may not be written to goes on in another folder."""
    folder, resume = left
    mount = ["mount", "--bind", "-o", "ro", folder, folder]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a folder for reading only")
    try:
        assert len(resume(tmp_path / "other", steps=1).losses) == 3
        with pytest.raises((OSError, CheckpointError), match="Read-only file system"):
            resume()
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/.lock", "run.json", "metrics.jsonl"])
def test_links(left, tmp_path, name):
    """What a link in the folder leads to outside of it is neither read nor changed."""
    folder, resume = left
    outside = tmp_path / "outside" / "precious"
    outside.parent.mkdir()
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    with (
        fuzz.untouched(tmp_path / "outside"),
        pytest.raises((TrainingError, CheckpointError, OSError), match="link"),
    ):
        resume()


@pytest.mark.parametrize("name", ["tensorboard", "profile"])
def test_linked_logs(left, tmp_path, name):
    """Event files and traces are not written where a link leads out of the folder."""
    folder, resume = left
    (tmp_path / "outside").mkdir()
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="a link that leads out of the folder"):
        resume(**{name: True})
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_users_files(left):
    """Files that are not the run's stay, hidden ones and links among them."""
    folder, resume = left
    mine = [".notes.markdown", ".vim.settings", "thesis.tex", "checkpoints/mine.txt"]
    for name in mine:
        (folder / name).write_text("mine")
    (folder / "link.png").symlink_to(folder / "thesis.tex")
    resume()
    assert all((folder / name).read_text() == "mine" for name in mine)


def test_any_resumption(left, attack):
    """Mutated in structure, what a run says of itself is one line, or the recipe goes on."""
    folder, _ = left
    good = {name: json.loads((folder / name).read_text()) for name in ("run.json", "spec.json")}
    spec = flaxnets.spec("linear_network")
    drawn = st.sampled_from([*good]).flatmap(
        lambda name: st.tuples(st.just(name), fuzz.mutated(good[name]))
    )

    def check(drawn):
        name, text = drawn
        (folder / name).write_text(text)
        try:
            with fuzz.one_line(TrainingError, specs.SpecError):
                known, before, told = run._earlier(folder, spec)
                settled = before.resumed(Recipe(steps=9)).settled(known, 100)
                assert settled.steps == 9
                assert told.engine.dispatch is None or told.engine.dispatch[0] > 0
        finally:
            (folder / name).write_text(json.dumps(good[name]))

    attack("runs to resume", drawn, check, 100)


@pytest.mark.parametrize("taken", [2**31 - 1, 2.5, -1])
def test_schedule_of_many_steps(taken):
    """A schedule is not gone through for hours because a file says so."""
    spec = flaxnets.spec("linear_network")
    recipe = Recipe(backend="torch", schedule="cosine", warmup=2).settled(spec, 100)
    loaded = data.fit(data.load(spec.data), spec.examples(1), spec.targets(1))
    engine = TorchEngine(spec, recipe, loaded)
    arrays, rest = engine.state()
    with pytest.raises(StructureError, match=r"^rest.taken: \S+ is no number of steps to go"):
        engine.load_state(arrays, {**rest, "taken": taken, "horizon": 7})


def test_any_rest(tmp_path, attack):
    """Beside the arrays of a checkpoint, what is mutated is one line, or as it was."""
    spec = flaxnets.spec("linear_network")
    recipe = Recipe(backend="torch", schedule="cosine", warmup=2).settled(spec, 100)
    loaded = data.fit(data.load(spec.data), spec.examples(1), spec.targets(1))
    engine = TorchEngine(spec, recipe, loaded)
    arrays, rest = engine.state()
    good = json.loads(json.dumps(rest))

    def check(text):
        with fuzz.one_line(StructureError):
            engine.load_state(arrays, json.loads(text))
        engine.load_state(arrays, good)
        assert json.loads(json.dumps(engine.state()[1])) == good

    mutated = fuzz.mutated(good).filter(lambda text: "[[[[[" not in text)  # see test_any_record
    attack("states of torch's optimizers", mutated, check, 60)


def test_stopped_in_the_last_evaluation(tmp_path, monkeypatch):
    """A signal behind the last step is heard, too; the run that is resumed ends as any other."""
    spec, recipe = flaxnets.spec("linear_network"), Recipe(steps=2, steps_per_dispatch=1)
    whole = train(spec, recipe, tmp_path / "whole")

    def asked(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(run, "evaluate", asked)
        with pytest.raises(StoppedError, match="stopped by SIGTERM after step 2; go on with --res"):
            train(spec, recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    again = train(spec, Recipe(), tmp_path / "run", Place(resume=tmp_path / "run"))
    assert again.figures == whole.figures
