"""What is told of the environment and what Python, JAX and the system say themselves."""

import importlib.metadata
import os
import platform
import subprocess
import sys

import jax
import pytest

from flaxnets import environment


def test_versions():
    """Those of the packages that are imported; one that is not installed is absent."""
    found = environment.versions()
    assert found["jax"] == jax.__version__
    assert found["python"] == platform.python_version()
    assert all(found[name] for name in environment.PACKAGES)


def test_absent(monkeypatch):
    """A package that is not there is told, not raised."""

    def missing(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert set(environment.versions().values()) == {"absent", platform.python_version()}


@pytest.mark.parametrize(
    ("command", "asked"),
    [("show lenet", "cuda"), ("show lenet", "bogus"), ("doctor", "cuda"), ("demo", "bogus")],
)
def test_absent_platform(command, asked, tmp_path):
    """A command that computes says in one line what is there, and leaves nothing behind."""
    if asked == "cuda" and jax.default_backend() == "gpu":
        pytest.skip("CUDA devices are there")
    result = subprocess.run(
        [sys.executable, "-m", "flaxnets", *command.split()],
        env={**os.environ, "JAX_PLATFORMS": asked},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    there = jax.default_backend()
    line = f"flaxnets: JAX_PLATFORMS={asked}: JAX finds no such device; it has {there}\n"
    assert (result.returncode, result.stderr, result.stdout) == (2, line, "")
    assert list(tmp_path.iterdir()) == []


def test_hardware():
    """As many devices as JAX has of the platform, its kind, the processor and its cores."""
    device = jax.devices("cpu")[0]
    found = environment.hardware(device)
    assert found["platform"] == "cpu"
    assert found["devices"] == f"{len(jax.devices('cpu'))} x {device.device_kind}"
    assert platform.machine() in found["cpu"]
    assert "cores" in found["cpu"]
    assert found["memory"].endswith(" GiB")
    assert environment.hardware() == environment.hardware(jax.devices()[0])


def test_memory_of_a_device():
    """A device that has memory of its own tells how much."""

    class Device:
        platform, device_kind = "cpu", "H100"

        def memory_stats(self):
            return {"bytes_limit": 80 * 2**30}

    assert environment.hardware(Device())["memory"].endswith(", device 80 GiB")


def test_torch_stays_outside():
    """Versions are read without importing what they are of."""
    code = "import sys; from flaxnets import environment as e; e.versions(); e.hardware(); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
