"""Compiled programs are kept in a private folder, or not at all."""

import os
import subprocess
import sys

import pytest

from flaxnets.training import compilation_cache

PROGRAM = """
import jax, jax.numpy as jnp
from flaxnets.training import compilation_cache
print(compilation_cache.enable())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((9, 9)))
"""


@pytest.fixture
def run(tmp_path):
    """The program above in a fresh process, with a home of its own."""
    settings = {
        "XDG_CACHE_HOME": str(tmp_path),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }

    def run(**more):
        environment = {**os.environ, **settings, **more}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def test_second_process_compiles_nothing(run, tmp_path):
    """The folder is the user's alone and of this jaxlib; what one process left serves the next."""
    folder = run()
    assert folder == str(tmp_path / "flaxnets" / compilation_cache.folder().name)
    assert os.stat(folder).st_mode & 0o777 == 0o700
    programs = {path for path in os.listdir(folder) if path.endswith("-cache")}
    assert programs
    run()
    assert {path for path in os.listdir(folder) if path.endswith("-cache")} == programs


def test_folder_of_others(run, tmp_path):
    """A folder that others may write to is not used, since what it holds is run."""
    folder = tmp_path / "flaxnets" / compilation_cache.folder().name
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert run() == "None"
    assert not list(folder.iterdir())


def test_folder_that_is_named(run, tmp_path):
    """What the user has named is left to the user."""
    assert run(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine")) == str(tmp_path / "mine")


def test_no_home(monkeypatch):
    """A user without a home, whom no list of users knows, compiles every time."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    monkeypatch.setattr(compilation_cache.jax.config, "_read", {}.get)
    with pytest.raises(RuntimeError):
        compilation_cache.folder()
    assert compilation_cache.enable() is None
