"""README and manual: their Python, run from top to bottom, their commands, names, links and tables.

The page on adding a network or a task is tried where it is followed: test_newcomer.py.
"""

import importlib
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import torch

import flaxnets
from flaxnets import data, parity
from flaxnets.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MANUAL = ROOT / ".docs/manual"
# In reading order: README, and what it lists.
LISTED = re.findall(r"\((\.docs/manual/\w+\.md)\) \|", README)
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", *LISTED)}
FOLLOWED = ".docs/manual/extending.md"  # by test_newcomer.py
SNIPPETS = {
    name: blocks
    for name, text in PAGES.items()
    if (blocks := re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
}
ROOMS = ("bridge", "data", "layers", "parity", "swap", "tasks", "training")

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


def _prose(text):
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def _commands():
    """Every command line in reading order: indented, or inline code that begins like one."""
    text = "\n".join(text for name, text in PAGES.items() if name != FOLLOWED)
    text = _prose(text)
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


@pytest.mark.parametrize("page", SNIPPETS)
def test_snippets(page, tmp_path, monkeypatch):
    """Every Python block of a page runs, each in the names that the ones before it left."""
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in SNIPPETS[page]:
        exec(block, names)
    assert page != "README.md" or names["report"].passed


def test_every_block_is_tried():
    """Python that is not run here is a file that test_newcomer.py writes; none is left out."""
    assert len(SNIPPETS["README.md"]) == 3
    for name, text in PAGES.items():
        titled = text.count("\n```python title=")
        assert text.count("\n```python") == len(SNIPPETS.get(name, ())) + titled
        assert (name == FOLLOWED) == (titled > 0), name


@pytest.mark.parametrize("line", _commands())
def test_command(line, pytestconfig, monkeypatch, capsys):
    """What a page says to type, and what the tools accept."""
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
        if words[:1] == ["train"] and {"lenet", "--steps"} <= {*words}:
            words[words.index("--steps") + 1] = "2"
        elif words[:1] == ["train"] or not words or words[0] not in CHEAP:
            continue  # test_run.py and test_default_runs.py train the others
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


def test_short():
    """README is read in three minutes, and leads to every page of the manual."""
    assert len(README.splitlines()) < 200
    assert sorted(LISTED) == sorted(str(path.relative_to(ROOT)) for path in MANUAL.glob("*"))


def test_every_check_is_explained():
    """Each check has a row that says what must agree."""
    page = PAGES[".docs/manual/parity.md"]
    assert all(f"| `{check}` |" in page for check in parity.CHECKS)


def test_every_data_set_is_listed():
    """Each data set that has a name has it in the table."""
    rows = re.findall(r"^\| (`.*?`) \|", PAGES[".docs/manual/data.md"], re.MULTILINE)
    assert set(data.names()) <= set(re.findall(r"`([^`]+)`", "".join(rows)))


def _is_there(name):
    """Whether a module, or what is in one, has this name."""
    module, *inside = name.split(".")
    found = importlib.import_module(module)
    for part in inside:
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(f"{found.__name__}.{part}")
            except ImportError:
                return False
    return True


def test_names():
    """What is named in a page's prose is in the library, and so are the files."""
    text = _prose("\n".join(PAGES.values()))
    dotted = re.findall(r"`((?:flaxnets|torch_ref)\.[\w.]+)", text)
    dotted += [f"flaxnets.{name}" for name in re.findall(rf"`((?:{'|'.join(ROOMS)})\.\w+)", text)]
    assert len(dotted) > 10
    for name in set(dotted):
        assert _is_there(name), name
    example = r"residual_mlp|huber|/x\.py|_x\.py"
    paths = set(re.findall(r"`((?:flaxnets|torch_ref|parity_tests)/[^`]*)`", text))
    assert len(paths) > 3
    for path in paths:
        assert re.search(example, path) or (ROOT / path).exists(), path


@pytest.mark.parametrize("name", ["flaxnets.run", "flaxnets.training.objectives", "torch_ref.nn"])
def test_wrong_name(name):
    """A module that is gone is none: the test above can fail."""
    assert not _is_there(name)


def _leads(page, link):
    """Whether a page's link leads to a file, and to a heading if it names one."""
    path, _, place = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    if not target.is_file():
        return False
    headings = re.findall(r"^#+ (.*)$", _prose(target.read_text()), re.MULTILINE) if place else ()
    places = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return not place or place in places


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links(page):
    """A link to a file of the repository leads there from where the page is kept."""
    for link in re.findall(r"\]\(([^)\s]+)\)", _prose((ROOT / page).read_text())):
        assert link.startswith("https://") or _leads(page, link), link


@pytest.mark.parametrize("link", ["nothing.md", "parity.md#nowhere", "../README.md", "#nowhere"])
def test_broken_link(link):
    """A file that is not there and a heading that is not there are seen."""
    assert not _leads(".docs/manual/parity.md", link)


def test_pictures():
    """Every picture that the README shows is there, and is one."""
    shown = re.findall(r'(?:src|srcset)="([^"]+)"', README)
    assert len(shown) == 2
    for name in shown:
        assert (ROOT / name).read_bytes().startswith(b"\x89PNG"), name
