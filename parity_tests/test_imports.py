"""Who imports whom: each framework works without the other, and the import contract bites."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Block())
"""
TRAIN_FLAX = """
from flaxnets.cli import main
assert main(["train", "lenet", "--data", "digits", "--steps", "3", "--out", {out!r}]) == 0
assert main(["show", "lenet"]) == 0
assert main(["train", "lenet", "--backend", "torch", "--data", "digits", "--steps", "3",
             "--out", {out!r} + "2"]) == 2
"""
BENCH = """
from flaxnets import bench
from flaxnets.bench import case, child, machine
said = []
tiny = {"variant": "tiny", "batch": 4, "turn": 0.001}
child.answer(case.Case("mlp", "flaxnets", **tiny), ["settle", "turn"], said.append)
assert said[-1]["seconds"][0] > 0
child.answer(case.Case("mlp", "torch eager", **tiny), [], said.append)
assert said[-1] == {"reason": "torch is not installed"}
assert machine.facts()["jax"]
"""
TRAIN_TORCH = """
import numpy as np, torch, torch_ref
from flaxnets import create
from torch_ref.tasks import classification
from torch_ref.training import loop
model = create("lenet", "torch", variant="tiny")
batch = np.ones((4, 18, 18, 2), np.float32), np.zeros(4, np.int32)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
losses = []
loop.fit(model, [loop.Phase(classification.objective(), optimizer)], [batch] * 3, 3, "bhwc",
         lambda step, metrics: losses.append(metrics["loss"]))
assert losses[2] < losses[0]
"""


def _run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


def test_flaxnets_trains_without_torch(tmp_path):
    """Training and showing need no torch; asking for torch gives one line."""
    code = BLOCK.format(blocked={"torch"}) + TRAIN_FLAX.format(out=str(tmp_path / "run"))
    result = _run(code)
    assert result.returncode == 0, result.stderr
    assert "torch is not installed" in result.stderr
    assert "Traceback" not in result.stderr


def test_bench_without_torch():
    """Our step is timed where torch is absent; torch's row says so."""
    result = _run(BLOCK.format(blocked={"torch"}) + BENCH)
    assert result.returncode == 0, result.stderr


def test_torch_ref_trains_without_jax():
    """The torch side needs neither jax nor flax."""
    blocked = {"jax", "jaxlib", "flax", "optax"}
    result = _run(BLOCK.format(blocked=blocked) + TRAIN_TORCH)
    assert result.returncode == 0, result.stderr


def test_face_imports_no_framework():
    """`import flaxnets` and all specs load the standard library only."""
    code = (
        "import sys, flaxnets; [flaxnets.spec(name) for name in flaxnets.names()]; "
        "print({'jax', 'flax', 'torch', 'numpy', 'einops'} & set(sys.modules))"
    )
    assert _run(code).stdout.strip() == "set()"


FORBIDDEN = [
    ("flaxnets/specs/mlp.py", "import numpy"),
    ("flaxnets/layers/linear.py", "import torch"),
    ("flaxnets/models/mlp.py", "import flaxnets.bridge"),
    ("flaxnets/bridge/rules.py", "import flaxnets.models.mlp"),
    ("flaxnets/training/step.py", "import torch"),
    ("flaxnets/data/idx.py", "import flaxnets.models.mlp"),
    ("flaxnets/edge/files.py", "import flaxnets.specs.mlp"),
    ("flaxnets/page/chart.py", "import flaxnets.layers.linear"),
    ("flaxnets/tasks/gan.py", "import flaxnets.experiment.recipe"),
    ("flaxnets/swap/arrays.py", "import flaxnets.experiment.run_folder"),
    ("flaxnets/experiment/run.py", "import flaxnets.cli"),
    ("flaxnets/parity/row.py", "import flaxnets.parity.report"),  # a circle
    ("torch_ref/models/mlp.py", "import jax"),
    ("torch_ref/arrays.py", "import flaxnets.bridge"),
]


def _lint_imports(folder):
    # In a process of its own, from a copy, so that the installed package is not what is read.
    code = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command"
    return subprocess.run(
        [sys.executable, "-c", f"{code}; lint_imports_command(['--no-cache'])"],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def copied_tree(tmp_path_factory):
    """A copy of the code that a test may break."""
    folder = tmp_path_factory.mktemp("tree")
    for package in ("flaxnets", "torch_ref"):
        shutil.copytree(ROOT / package, folder / package)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_contract_is_kept(copied_tree):
    """The table of who may import whom holds for the code as it is."""
    result = _lint_imports(copied_tree)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("file", "planted"), FORBIDDEN)
def test_contract_breaks(copied_tree, file, planted):
    """A forbidden import that is planted is found."""
    path = copied_tree / file
    original = path.read_text()
    path.write_text(f"{original}\n{planted}\n")
    try:
        result = _lint_imports(copied_tree)
    finally:
        path.write_text(original)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "BROKEN" in result.stdout
