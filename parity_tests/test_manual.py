"""The README's Python, run from top to bottom, its commands, and its table of checks.

What the section on adding an architecture shows is tried where it is followed: test_newcomer.py.
"""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import torch

import flaxnets
from flaxnets import parity
from flaxnets.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

# Words in capitals stand for the reader's own; here is what one might write in their place.
READERS = {
    "NAME": "mlp",
    "NAMES": "mlp lenet",
    "RUN": "runs/mine",
    "WEIGHTS": "weights",
    "F": "file",
    "HOST": "localhost",
    "PORT": "1234",
    "I": "0",
    "N": "2",
    "A": "runs/a",
    "B": "runs/b",
    "C": "runs/c",
    "NEW": "runs/new",
}
CHEAP = ("list", "show", "train", "convert", "doctor")


def _commands():
    """Every command line in reading order: indented, or inline code that begins like one."""
    text = re.sub(r"\n## Adding an architecture\n.*?(?=\n## )", "", README, flags=re.DOTALL)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    indented = r"^ {4}(\S.*?)(?: +# .*)?$"
    inline = r"`((?:flaxnets|make|pytest|pip|\S+/pip|apt-get)\s[^`]+|--[^`]+)`"
    found = re.finditer(f"{indented}|{inline}", text, re.MULTILINE)
    return list(dict.fromkeys(" ".join((one[1] or one[2]).split()) for one in found))


def _words(line):
    """A command of ours as a reader might write it, without the brackets of what is optional."""
    line = re.sub(r"[][]", "", line).replace("...", "flaxnets")
    return shlex.split(re.sub(r"\b[A-Z]+\b", lambda word: READERS[word[0]], line))


def _code(words):
    try:
        return main(words)
    except SystemExit as stop:  # --help
        return stop.code


def _understood(line, config, monkeypatch, capsys):
    """Whether the command's tool knows what it is asked; nothing is run but the tool's parser."""
    for command in COMMANDS.values():
        monkeypatch.setattr(command, "run", lambda self: 0)
    tool, *rest = line.split()
    if tool == "flaxnets":
        return _code(_words(line)[1:]) == 0
    if tool.startswith("--") and not rest:
        _code(["train", "mlp", "--help"])
        return re.search(rf"(?<![\w-]){tool}(?![\w-])", capsys.readouterr().out)
    if tool.startswith("--"):  # an option that stands alone is one of `flaxnets train`
        return _code(["train", "mlp", *_words(line)]) == 0
    if tool == "make":
        found = subprocess.run(["make", "--dry-run", *rest], cwd=ROOT, capture_output=True)
        return found.returncode == 0
    if tool == "pytest":
        missing = object()
        options = [word for word in rest if word.startswith("--")]
        return missing not in [config.getoption(option, missing) for option in options]
    if tool == "apt-get":
        return rest[-1] in re.findall(r"[\w-]+", (ROOT / ".ci/run").read_text())
    if tool.endswith("pip"):
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        return all(
            extra in extras["optional-dependencies"] for extra in re.findall(r"\[(.*)]", line)
        )
    return False


def test_snippets(tmp_path, monkeypatch):
    """Every Python block runs, each in the names that the ones before it left.

    A block with a title is a file of that name.
    """
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 3
    names: dict = {}
    for block in blocks:
        exec(block, names)
    assert names["report"].passed


@pytest.mark.parametrize("line", _commands())
def test_command(line, pytestconfig, monkeypatch, capsys):
    """What the README says to type, and what the tools accept."""
    assert _understood(line, pytestconfig, monkeypatch, capsys), capsys.readouterr().err or line


@pytest.mark.parametrize(
    "line",
    [
        "flaxnets training lenet",
        "flaxnets train lenet --stepps 200",
        "flaxnets bench [NAMES] [--contender ...]",
        "--optimiser adamw",
        "--step",
        "flaxnets train lenet --step 200",
        "make tests",
        "pytest --parity-check forward",
        "pip install 'flaxnets[datum]'",
        "apt-get install dataset-fashion",
        "frobnicate",
    ],
)
def test_misspelt_command(line, pytestconfig, monkeypatch, capsys):
    """Each tool's parser refuses a slip of the pen: the test above can fail."""
    assert not _understood(line, pytestconfig, monkeypatch, capsys)


def test_cheap_commands(tmp_path, monkeypatch, capsys):
    """What takes seconds is run as it stands, in reading order, the training for two steps."""
    monkeypatch.chdir(tmp_path)
    torch.save(flaxnets.create("lenet", "torch").state_dict(), "weights.pt")
    ran = set()
    for line in _commands():
        words = line.split()[1:]
        if words[:1] == ["train"] and "lenet" in words:
            words[words.index("--steps") + 1] = "2"
        elif words[:1] == ["train"] or not words or words[0] not in CHEAP:
            continue  # test_run.py trains the others
        assert _code(words) == 0, capsys.readouterr().err
        ran.add(words[0])
    assert ran == set(CHEAP)
    assert (tmp_path / "runs/mine/report.html").is_file()
    assert (tmp_path / "weights.safetensors").is_file()


def test_commands_stand_first():
    """The two commands that set everything up come before any heading but the title."""
    head = README.split("\n## ")[0]
    assert "    make demo " in head
    assert "    make test " in head


def test_every_check_is_explained():
    """Each check has a row that says what must agree."""
    assert all(f"| `{check}` |" in README for check in parity.CHECKS)


def test_pictures():
    """Every picture that the README shows is there, and is one."""
    shown = re.findall(r'(?:src|srcset)="([^"]+)"', README)
    assert len(shown) == 2
    for name in shown:
        assert (ROOT / name).read_bytes().startswith(b"\x89PNG"), name
