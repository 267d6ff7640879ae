"""The pytest plugin in projects of their own: the manual's, a failing one, one without torch."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGIN = ("-p", "flaxnets.pytest_plugin")
IN_PROCESS = ("-p", "no:faulthandler", "--assert=plain")
PAGE = (ROOT / ".docs/manual/parity.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(EXAMPLE,) = (block for block in BLOCKS if "parity_check" in block)
BLOCK_TORCH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Run pytest on a folder with one test file; its exit code and what it printed."""

    def run(code, *options):
        (tmp_path / "test_mine.py").write_text(code)
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            found = pytest.main(["-q", "-s", "-W", "error", *IN_PROCESS, *options])
        del sys.modules["test_mine"]
        return found, said.getvalue()

    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture
def process(tmp_path):
    """The same in a process of its own."""

    def run(code, *options, **variables):
        (tmp_path / "test_mine.py").write_text(code)
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", **variables}
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-W", "error", *options],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        return result.returncode, result.stdout + result.stderr

    return run


def test_example(project):
    """The manual's test of a layer with a rule of its own passes all checks."""
    code, out = project(EXAMPLE, *PLUGIN, "--parity-platform=cpu")
    assert code == 0, out
    assert "1 passed" in out


def test_failure(project):
    """A pair that is not the same function fails the test with the report's line."""
    wrong = EXAMPLE.replace("jnp.tanh(", "jnp.sin(")
    assert wrong != EXAMPLE
    code, out = project(wrong, *PLUGIN, "--parity-checks=forward,buffers")
    assert code == 1, out
    assert re.search(r"^test_\w+ \(default\) forward: error .* above 1e-10 at ", out, re.MULTILINE)
    assert "Traceback" not in out


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--parity-checks=speed", "--parity-checks: 'speed' is unknown; use forward"),
        ("--parity-platform=tpu", "--parity-platform: platform 'tpu' is absent"),
    ],
)
def test_wrong_option(project, option, message):
    """One line says what is wrong."""
    code, out = project("def test(parity_check): pass", *PLUGIN, option)
    assert code == 1
    assert message in out


def test_left_out(project):
    """A test whose checks are all left out is skipped, which a reader sees."""
    code, out = project(
        "def test(parity_check): parity_check(None, None, [], ['buffers'])",
        *PLUGIN,
        "--parity-checks=forward",
        "-rs",
    )
    assert code == 0
    assert "--parity-checks leaves out buffers" in out


@pytest.mark.parametrize("options", [(), PLUGIN], ids=["alone", "named as well"])
def test_entry_point(process, tmp_path, options):
    """Installed as pyproject.toml says, it is there once, however often it is named."""
    declared = re.search(
        r"entry-points.pytest11\]\n\"(.*)\" = \"(.*)\"", (ROOT / "pyproject.toml").read_text()
    )
    assert declared
    folder = tmp_path / "installed-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: installed\nVersion: 0\n")
    (folder / "entry_points.txt").write_text(f"[pytest11]\n{declared[1]} = {declared[2]}\n")
    code, out = process("def test(pytestconfig): pytestconfig.getoption('parity_checks')", *options)
    assert code == 0, out


def test_light_and_without_torch(process):
    """A project that has nothing to do with it pays for neither framework."""
    light = "import sys\ndef test(): assert not {'jax', 'torch', 'numpy'} & set(sys.modules)"
    code, out = process(light, *PLUGIN, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert code == 0, out
    needs = f"{BLOCK_TORCH}\ndef test(parity_check): pass\n"
    code, out = process(needs, *PLUGIN, "-rs", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert code == 0, out
    assert "parity_check needs torch" in out
