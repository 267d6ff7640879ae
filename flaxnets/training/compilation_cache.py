"""Compiled programs that outlive the process, so that a second run starts at once."""

import importlib.metadata
import os
import stat
from pathlib import Path

import jax

VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def enable() -> Path | None:
    """Keep compiled programs in a private folder of this user and this version of jaxlib.

    A folder that the user or `JAX_COMPILATION_CACHE_DIR` has named is left to them; one that
    others could write to is not used, since what it holds is run.

    Returns:
        The folder; None where there is none to be had.

    >>> import tempfile, unittest.mock
    >>> there = {"XDG_CACHE_HOME": tempfile.mkdtemp(), VARIABLE: ""}
    >>> with unittest.mock.patch.dict(os.environ, there):
    ...     folder()
    ...     # doctest: +ELLIPSIS
    PosixPath('.../flaxnets/jaxlib-...')
    """
    if named := jax.config._read("jax_compilation_cache_dir"):
        return Path(named)
    try:
        path = folder()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except (OSError, RuntimeError):  # no home, or none to write to: every run compiles
        return None
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022:
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return path


def folder() -> Path:
    """The folder of this user and version, which need not be there.

    Raises:
        RuntimeError: a user who has no home.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "flaxnets" / f"jaxlib-{importlib.metadata.version('jaxlib')}"
