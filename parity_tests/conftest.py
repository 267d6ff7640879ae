"""Shared settings of the suite: one torch thread a worker, fast compilation, no preallocation."""

import collections
import functools
import gc
import os
import shutil
import subprocess
import sys

import pytest

from flaxnets import compile_options
from parity_tests import fuzz
from parity_tests.fuzz import ATTACKS

collect_ignore = ["experiment/lives.py", "training/layouts.py"]  # programs of processes

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
# What a test computes does not depend on what this user has compiled before.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")
# Most tests compile a small program for each of its operations and run it once. The checks that
# judge optimised code ask for it themselves (flaxnets/parity/pair.py).
if "XLA_FLAGS" not in os.environ:
    one_thread = {"xla_cpu_parallel_codegen_split_count": 1}
    os.environ["XLA_FLAGS"] = compile_options.flags({**compile_options.UNOPTIMISED, **one_thread})


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread():
    """Torch's and XLA's thread pools spin against each other; one torch thread ends that."""
    try:
        import torch
    except ImportError:  # the job without torch runs the tests that need none
        return
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _little_garbage():
    """What was imported stays, and tracing leaves little: the collector need not look often."""
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)


@pytest.fixture(scope="module")
def strict():
    """JAX promotes neither dtypes nor ranks by itself, as a user may ask of it."""
    import jax

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def compiled_once(tmp_path):
    """Programs that several runs compile are compiled by the first."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    settings = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": str(tmp_path / "programs"),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two or four megabytes, which only root may mount, and only on Linux."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def mount(size):
        nonlocal mounted
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root may mount a small disk")
        mounted = True
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def attack(record_property):
    """Draw and check many times; see `fuzz.attack`. Tests with it make up the table of attacks."""
    return functools.partial(fuzz.attack, told=record_property)


def pytest_collection_modifyitems(items):
    """`-m attack` chooses the tests that use the fixture."""
    for item in items:
        if "attack" in getattr(item, "fixturenames", ()):
            item.add_marker("attack")


@pytest.fixture
def browse(tmp_path):
    """Open a page in Chromium, run a script in it, and give back the page's elements."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium to open the page in")

    def browse(page, fragment="", script=""):
        file = tmp_path / "page.html"
        file.write_text(page.replace("</body>", f"<script>{script}</script></body>"))
        result = subprocess.run(
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--enable-logging=stderr",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--dump-dom",
                f"{file.as_uri()}#{fragment}",
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, result.stderr
        assert "CONSOLE" not in result.stderr, result.stderr
        return result.stdout

    return browse


def pytest_terminal_summary(terminalreporter):
    """Say how many layer tests and interruptions there were, and what a newcomer's path takes."""
    passed = [one for one in terminalreporter.stats.get("passed", []) if one.when == "call"]
    layers = [one for one in passed if one.nodeid.startswith("parity_tests/layers/")]
    terminalreporter.write_line(f"layer tests against torch.nn: {len(layers)} passed")
    counts = collections.Counter()
    for report in passed:
        if "test_session.py" in report.nodeid:
            counts.update(dict(report.user_properties))
    if counts:
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        terminalreporter.write_line(f"interruptions: {told}; all ended bitwise equal")
    attacks = collections.defaultdict(collections.Counter)
    for report in passed + terminalreporter.stats.get("failed", []):
        for name, counts in report.user_properties:
            if name.startswith(ATTACKS):
                kinds = (name.removeprefix(ATTACKS), "all")
                for kind in kinds:
                    attacks[kind].update(dict(zip(("tried", "held"), counts, strict=True)))
    for kind, found in sorted(attacks.items()):
        failed = found["tried"] - found["held"]
        terminalreporter.write_line(
            f"| {kind} | {found['tried']:,} | {found['held']:,} | {failed} |"
        )
    path = ("test_demo.py", "test_newcomer.py")
    steps = [
        f"{doing} {seconds} s"
        for report in passed
        if report.nodeid.partition("::")[0].endswith(path)
        for doing, seconds in report.user_properties
    ]
    if steps:
        terminalreporter.write_line(f"a newcomer's path: {', '.join(steps)}")
