"""Many devices: every layout trains the same network to the same losses."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import flaxnets
from flaxnets import bridge, compile_options
from flaxnets.experiment.recipe import Recipe
from flaxnets.experiment.run import train
from flaxnets.training import mesh as meshes

pytestmark = pytest.mark.xdist_group("meshes")  # one worker, which starts the devices once
LAYOUTS = Path(__file__).with_name("layouts.py")


def _environment(devices):
    """Of a child with its own virtual devices that finds this working tree."""
    count = {"xla_force_host_platform_device_count": devices}
    flags = compile_options.flags({**count, **compile_options.UNOPTIMISED})
    return {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(LAYOUTS.parents[2])}


@pytest.fixture(scope="module")
def seen():
    """What eight virtual devices saw, in one process; see `layouts.py`."""
    result = subprocess.run(
        [sys.executable, LAYOUTS],
        env=_environment(8),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    assert "Involuntary full rematerialization" not in result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", ["lenet", "vae", "transformer"])
def test_layouts_agree(seen, name):
    """1, 2, 4 and (LeNet) 8 devices, with divided parameters or not: 50 losses agree to 1e-6.

    The descent is plain: a bias in front of a normalisation has rounding noise for a gradient,
    which Adam would scale up to whole steps.
    """
    one, *others = seen["rounding"][name].values()
    assert len(one) == 50
    assert len(others) == (5 if name == "lenet" else 1)
    for other in others:
        np.testing.assert_allclose(other, one, rtol=1e-6)


@pytest.mark.parametrize("name", ["lenet", "vae", "transformer"])
def test_layouts_are_one_function(seen, name):
    """With Adam, parts and an average, in float64, layouts differ by rounding alone."""
    one, *others = seen["semantics"][name].values()
    assert len(others) == (2 if name == "lenet" else 1)
    assert one[-1] < one[0]
    for other in others:
        np.testing.assert_allclose(other, one, rtol=1e-12)


def test_restored_on_another_layout(seen):
    """A run that moves from 8 devices to 4 shares on 8 and to one device goes on as before."""
    np.testing.assert_allclose(seen["moved"]["moved"], seen["moved"]["stayed"], rtol=1e-6)


def test_parameters_are_divided(seen):
    """Under fsdp=4 a device holds a quarter of what is large, under data=4 all of it."""
    copied, divided = seen["held"]["data=4"], seen["held"]["fsdp=4"]
    assert copied["state"] == [copied["all"]] * 4
    assert copied["largest"] == [1]
    assert divided["largest"] == [0.25]
    assert max(divided["state"]) < 0.3 * divided["all"]


def test_trained_network_outlives_steps(seen):
    """What was taken from a mesh stays when the state that it came from is donated."""
    assert seen["outlives"]


def test_label_out_of_range(seen):
    """On several devices, too, the label is named that makes the loss NaN."""
    assert seen["reason"].endswith("nan at step 1: target holds 12; use 0 to 9 (or -100)")


def test_two_processes(tmp_path):
    """Two processes of two devices each and a run on one device: losses, figures and weights."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "flaxnets", "train", "vae", "--data", "digits"]
    command += ["--in-shape", "1", "8", "8", "--channels", "8", "16", "--n-latent", "4"]
    command += ["--optimizer", "sgd", "--lr", "0.001", "--steps", "10", "--batch-size", "8"]
    command += ["--eval-every", "5", "--save-every", "4"]
    command += ["--mesh", "data=2,fsdp=2", "--out", str(tmp_path / "two")]
    command += ["--coordinator", f"localhost:{port}", "--num-processes", "2", "--process-id"]
    environment = {**_environment(2), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    started = [
        subprocess.Popen(
            [*command, number], env=environment, text=True, stdout=-1, stderr=subprocess.STDOUT
        )
        for number in "01"
    ]
    try:
        said = [process.communicate(timeout=240)[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [process.returncode for process in started] == [0, 0], said

    spec = flaxnets.spec("vae", in_shape=(1, 8, 8), channels=(8, 16), n_latent=4)
    recipe = Recipe(
        data="digits", optimizer="sgd", lr=0.001, steps=10, batch_size=8, eval_every=5, save_every=4
    )
    train(spec, recipe, tmp_path / "one")
    ours, theirs = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("two", "one")
    )
    assert len(ours) == len(theirs) == 10 + 2 + 1
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"seconds", "divergence"}:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-6, err_msg=name)
    weights = bridge.read(tmp_path / "one" / "model.safetensors")
    for name, value in bridge.read(tmp_path / "two" / "model.safetensors").items():
        np.testing.assert_allclose(value, weights[name], rtol=1e-4, atol=1e-6)
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("two", "one")]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data", "'data' is not data=N or fsdp=N"),
        ("model=2", "'model=2' is not data=N or fsdp=N"),
        ("data=0", "'data=0' is not data=N or fsdp=N"),
        ("data=1,data=1", "data is given twice"),
        ("data=4096", "wants 4096 devices, there are"),
    ],
)
def test_wrong_mesh(text, message):
    """Each mistake is named."""
    with pytest.raises(meshes.MeshError, match=message):
        meshes.make(text)


def test_batch_that_cannot_be_shared():
    """A batch is divided among all devices, and each of its parts, too."""

    class Eight:
        size = 8

    meshes.require_divisible(Eight, 16, 2)
    with pytest.raises(meshes.MeshError, match="batch_size 12 is no multiple of 8 devices"):
        meshes.require_divisible(Eight, 12)
    with pytest.raises(meshes.MeshError, match="no multiple of 8 devices times 3 parts"):
        meshes.require_divisible(Eight, 16, 3)


def test_batch_is_divided():
    """Every device has its part of a batch, and of each of several batches."""
    mesh = jax.sharding.AbstractMesh((4, 2), meshes.AXES)
    assert meshes.of_batch(mesh).shard_shape((16, 3)) == (2, 3)
    assert meshes.of_batch(mesh, several=True).shard_shape((5, 16, 3)) == (5, 2, 3)
    assert meshes.everywhere(mesh).shard_shape((16, 3)) == (16, 3)


def test_process_out_of_range():
    """A process beyond the last is refused before anyone is called."""
    with pytest.raises(meshes.MeshError, match="process_id 2 is not between 0 and 1"):
        meshes.join("localhost:1", 2, 2)
    assert jax.process_count() == 1
