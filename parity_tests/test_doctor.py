"""The doctor: a sound installation passes, and every canary fails where its subject is wrong."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from flaxnets import doctor, environment
from flaxnets.cli import main

ROOT = Path(__file__).parents[1]
CANARIES = {canary.name: canary for canary in doctor.CANARIES}


def _off(function):
    """The function with every real result a little off."""
    return lambda *args, **options: jax.tree.map(
        lambda x: x * (1 + 1e-4), function(*args, **options)
    )


def _last_row_lost(rows):
    return lambda x: rows(x).at[-1].set(0)


_vmap, _bits, _matmul, _version = jax.vmap, jax.random.bits, jnp.matmul, importlib.metadata.version
WRONG = [
    (
        "versions",
        importlib.metadata,
        "version",
        lambda p: "0.10.2" if p == "jaxlib" else _version(p),
    ),
    ("float64", jnp, "add", lambda x, y: jnp.asarray(np.float32(x) + np.float32(y))),
    ("matrix product", jnp, "matmul", _off(jnp.matmul)),
    ("matrix product", jax, "jit", _off),
    (
        "matrix product in bfloat16",
        jnp,
        "matmul",
        lambda x, y: _matmul(x[:, :-1], y[:-1]),
    ),
    ("convolution", lax, "conv_general_dilated", _off(lax.conv_general_dilated)),
    (
        "batched matrix-vector product, reduced",
        jax,
        "vmap",
        lambda function: _last_row_lost(_vmap(function)),
    ),
    ("scan", lax, "scan", _off(lax.scan)),
    ("gradient of pooling", jax, "grad", lambda function: lambda x: jnp.ones_like(x)),
    ("softmax", jax.nn, "softmax", lambda x: jnp.exp(x) / jnp.exp(x).sum()),
    ("cumulative sum", jnp, "cumsum", lambda x, axis: jnp.nan * x),
    ("sort", jnp, "sort", lambda x, axis: x),
    (
        "random numbers",
        jax.random,
        "bits",
        lambda key, *more: _bits(jax.random.split(key)[0], *more),
    ),
    ("random numbers", jax.random, "uniform", lambda key, shape, dtype: jnp.zeros(shape, dtype)),
    ("DLPack both ways", jnp, "from_dlpack", lambda x: jnp.array(x.numpy())),
]


@pytest.mark.parametrize("name", CANARIES)
def test_ok(name):
    """This installation is sound."""
    found = doctor.attempt(CANARIES[name])
    assert (found.state, found.message) == ("ok", "")


@pytest.mark.parametrize(("name", "place", "attribute", "fault"), WRONG)
def test_wrong(monkeypatch, name, place, attribute, fault):
    """A canary is wrong where its subject is, in one line, and names the mend."""
    monkeypatch.setattr(place, attribute, fault)
    found = doctor.attempt(CANARIES[name])
    assert found.state == "wrong"
    assert found.message
    assert "\n" not in found.message
    assert found.mend == CANARIES[name].mend


def test_every_canary_is_shown_to_fail():
    """No canary is there that nothing has been shown to make wrong."""
    assert {name for name, *_ in WRONG} == CANARIES.keys()


def test_crash_in_a_canary():
    """What raises is wrong, in one line."""
    broken = doctor.Canary("broken", lambda: jnp.ones(2) @ jnp.ones(3), "buy another")
    found = doctor.attempt(broken)
    assert found.state == "wrong"
    assert found.message.startswith("TypeError: ")
    assert "\n" not in found.message


def test_excluded_versions():
    """Those that pyproject.toml excludes."""
    (jax_wanted,) = (
        wanted
        for wanted in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
            "dependencies"
        ]
        if wanted.startswith("jax>")
    )
    assert f"'{jax_wanted}'" == doctor.JAX
    assert set(re.findall(r"!=([\d.]+)", jax_wanted)) == doctor.EXCLUDED.keys()


def _child(monkeypatch, code):
    monkeypatch.setattr(doctor, "CHILD", (sys.executable, "-c", textwrap.dedent(code)))


def test_process_that_dies(monkeypatch):
    """The canary that ends its process is wrong; those after it are tried in another."""
    _child(
        monkeypatch,
        """
        import json, os, sys
        from flaxnets import doctor, environment
        print("noise")
        print(json.dumps({"platform": "cpu"}), flush=True)
        for index in range(int(sys.argv[1]), len(doctor.CANARIES)):
            if index == 2:
                print("Illegal instruction", file=sys.stderr, flush=True)
                os.abort()
            print(json.dumps({"name": doctor.CANARIES[index].name, "state": "ok"}), flush=True)
        """,
    )
    heard = []
    found = doctor.examine(heard.append)
    assert [finding.name for finding in found.findings] == list(CANARIES)
    assert found.findings == heard
    wrong = [finding for finding in found.findings if finding.state == "wrong"]
    assert [finding.name for finding in wrong] == ["matrix product"]
    assert wrong[0].message == "the process ended: Illegal instruction"
    assert not found.healthy


def test_process_that_never_starts(monkeypatch):
    """One finding, not one for every canary."""
    _child(monkeypatch, "import no_such_package")
    (found,) = doctor.examine().findings
    assert "No module named 'no_such_package'" in found.message


def test_process_that_hangs(monkeypatch):
    """It is ended when patience is."""
    monkeypatch.setattr(doctor, "PATIENCE", 0.5)
    _child(monkeypatch, "import time; time.sleep(100)")
    (found,) = doctor.examine().findings
    assert found.state == "wrong"


def test_command(monkeypatch, tmp_path, capsys):
    """Its own process, and a setting that changes random numbers: exit code 1 and the mend."""
    monkeypatch.setenv("JAX_THREEFRY_PARTITIONABLE", "false")
    assert main(["doctor", "--json", str(tmp_path / "d.json")]) == 1
    content = json.loads((tmp_path / "d.json").read_text())
    assert not content["healthy"]
    states = {finding["name"]: finding["state"] for finding in content["findings"]}
    assert states == dict.fromkeys(CANARIES, "ok") | {"random numbers": "wrong"}
    assert content["facts"]["JAX_THREEFRY_PARTITIONABLE"] == "false"
    out = capsys.readouterr().out
    assert "unset JAX_THREEFRY_PARTITIONABLE" in out
    assert "jaxlib" in out


def test_command_finds_nothing(monkeypatch, capsys):
    """Exit code 0 if every canary is sound."""
    sound = [doctor.Finding(name, "ok") for name in CANARIES]
    monkeypatch.setattr(doctor, "examine", lambda heard: doctor.Diagnosis(sound, {}, ["rest"]))
    assert main(["doctor"]) == 0
    assert "hint: rest" in capsys.readouterr().out


def test_without_torch():
    """What needs torch is left out, the rest is tried."""
    code = """
        import sys
        class Block:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "torch":
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Block())
        from flaxnets import doctor, environment
        doctor.facts()
        states = {c.name: doctor.attempt(c).state for c in doctor.CANARIES[-2:]}
        assert states == {"random numbers": "ok", "DLPack both ways": "left out"}, states
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("facts", "hint"),
    [
        ({"platform": "cpu", "GPU seen": "yes"}, "flaxnets[cuda13]"),
        ({"platform": "cpu", "GPU seen": "no", "torch CUDA": "13.0"}, "built for CUDA 13.0"),
        ({"platform": "gpu", "torch CUDA": "none"}, "copied to the host"),
        ({"platform": "gpu", "torch CUDA": "13.0"}, "XLA_PYTHON_CLIENT_PREALLOCATE=false"),
        ({"platform": "cpu", "torch threads": "8"}, "torch.set_num_threads(1)"),
        ({"platform": "cpu", "jaxlib": "0.12.0.1"}, "gradients of kernels up in bfloat16"),
        ({"JAX_DISABLE_JIT": "1"}, "nothing is compiled"),
    ],
)
def test_hints(facts, hint):
    """One hint for each surprise, none without."""
    (said,) = doctor.hints(facts)
    assert hint in said


def test_no_hints():
    """A sound installation has nothing to say."""
    assert doctor.hints({"platform": "cpu", "GPU seen": "no", "torch threads": "1"}) == []


def test_hint_of_bfloat16():
    """It is given where it is true, and what it says mends it."""
    code = """
        import jax, jax.numpy as jnp, numpy as np
        rng = np.random.Generator(np.random.Philox(0))
        x, g = (jnp.array(rng.standard_normal((4, 128, 64)), jnp.bfloat16) for _ in range(2))
        loss = lambda w, x, g: ((x @ w) * g).sum()
        gradient = jax.jit(jax.grad(loss))(jnp.zeros((64, 64), x.dtype), x, g)
        truth = np.einsum("bti,bto->io", np.float64(x), np.float64(g))
        print(np.max(np.abs(np.float64(gradient) - truth)) / np.max(np.abs(truth)) / 2**-8)
    """

    def units(flags):
        command = [sys.executable, "-c", textwrap.dedent(code)]
        environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
        return float(result.stdout)

    version = environment.version("jaxlib")
    hints = doctor.hints({"platform": "cpu", "jaxlib": version})
    assert (units("") > 2) == bool(hints)
    for hint in hints:
        assert units(hint.split("XLA_FLAGS=")[1]) < 2
