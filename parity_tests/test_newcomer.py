"""A newcomer's path: the manual's page on adding a network or a task, followed to the letter."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flaxnets import parity

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGE = (ROOT / ".docs/manual/extending.md").read_text()
_, ARCHITECTURE, TASK = re.split(r"^## .*$", PAGE, flags=re.MULTILINE)


def _files(section):
    """The files that a section shows, by name."""
    return dict(
        re.findall(r'^```python title="(\S+)"\n(.*?)^```$', section, re.DOTALL | re.MULTILINE)
    )


def _commands(section):
    """What a section says to type."""
    return [line[4:] for line in section.splitlines() if line.startswith("    flaxnets ")]


@pytest.fixture
def copy(tmp_path):
    """A clone of the house, less what git ignores."""
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]
    ignore = shutil.ignore_patterns(".git", *ignored)
    return Path(shutil.copytree(ROOT, tmp_path / "copy", ignore=ignore))


def _python(folder):
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*.py")}


def _run(copy, *words):
    """What Python prints in the copy, and the seconds that it takes."""
    start = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout, round(time.monotonic() - start, 1)


def test_new_architecture(copy, record_property):
    """The four files and the row that the page shows are all that a network takes.

    The command line finds it and proves it, and whatever the suite asks of every architecture
    holds for it, but for the checks of parity, which are the command's.
    """
    before, files = _python(copy), _files(ARCHITECTURE)
    for name, text in files.items():
        (copy / name).write_text(text)
    (row,) = re.findall(r"^```markdown\n(.*?\n)```$", ARCHITECTURE, re.DOTALL | re.MULTILINE)
    head, rows, tail = re.split(r"(\| name \| network \|.*?\n)(?=\n)", README, flags=re.DOTALL)
    (copy / "README.md").write_text(head + rows + row + tail)

    said = {}
    for line in _commands(ARCHITECTURE):
        command, *words = shlex.split(line)[1:]
        said[command], seconds = _run(copy, "flaxnets", command, *words)
        record_property(command, seconds)
    assert said.keys() == {"list", "show", "train", "parity"}
    assert re.search("residual_mlp .* ResidualMLP .* classification .* tiny", said["list"])
    assert re.search(r"fc2\.kernel .* fc2\.weight .* \(32, 64\) .* \(64, 32\)", said["show"])
    assert float(re.search(r"test accuracy (\S+)%", said["train"])[1]) > 90
    assert "</html>" in (copy / "runs/residual/report.html").read_text()
    assert said["parity"].count(" pass ") == 2 * len(parity.CHECKS)

    asked = {name for name, text in before.items() if "flaxnets.names()" in text}
    asked = asked - {"parity_tests/test_parity.py"} | files.keys()
    tests = sorted(name for name in asked if name.startswith("parity_tests/"))
    chosen = ("-k", "residual_mlp or test_mirror")
    told, seconds = _run(copy, "pytest", "-v", "-n0", *chosen, *tests)
    record_property("its tests", seconds)
    assert "test_shortcut PASSED" in told
    for test in ("test_every_architecture_trains", "test_architecture_is_complete"):
        assert f"{test}[residual_mlp] PASSED" in told
    _run(copy, "ruff", "format", "--check", *files)
    _run(copy, "ruff", "check", *files)
    assert _python(copy) == before | files


def test_new_task(copy, record_property):
    """The three files that the page shows are all that a task takes; a network names it."""
    files = _files(TASK)
    assert len(files) == 3
    for name, text in files.items():
        (copy / name).write_text(text)
    told, seconds = _run(
        copy,
        "pytest",
        "-v",
        "-n0",
        *("-k", "huber or tasks_are_complete"),
        *("parity_tests/tasks", "parity_tests/test_mirror.py"),
    )
    record_property("a task's tests", seconds)
    for test in ("test_objective", "test_figures", "test_same_options[huber]", "are_complete"):
        assert f"{test} PASSED" in told
    assert "test_module_has_its_test_file[flaxnets/tasks/huber.py] PASSED" in told
    _run(copy, "ruff", "format", "--check", *files)
    _run(copy, "ruff", "check", *files)

    ((where, line),) = re.findall(r"In `(\S+)`, for example,\s*write `(.+?)`", TASK)
    before = (copy / where).read_text()
    (copy / where).write_text(re.sub(r"task: ClassVar.*", line, before))
    (command,) = _commands(TASK)
    _, *words = shlex.split(command)
    trained, seconds = _run(copy, "flaxnets", *words)
    record_property("a task's training", seconds)
    found = re.search(r"test mae (\S+)\ntest mae of the median (\S+)", trained)
    assert float(found[1]) < float(found[2])
