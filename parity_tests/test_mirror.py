"""The house is whole: four files an architecture, a README row, a test file for every module."""

import ast
from pathlib import Path

import pytest

import flaxnets
from flaxnets import tasks
from flaxnets.specs import variants

ROOT = Path(__file__).parents[1]
# Modules whose tests have another name, and why.
ELSEWHERE = {
    "flaxnets/layers/init.py": "distributions are checked where layers use them: test_parity.py",
    **dict.fromkeys(
        [f"flaxnets/parity/diagnosis/{name}.py" for name in ("attribution", "local")]
        + [
            f"flaxnets/parity/mutations/{name}.py"
            for name in (
                *("attention", "chain", "dense", "images", "mutation", "training"),
                *("normalization", "programs", "recurrent", "weights"),
            )
        ],
        "planted faults have to be caught at their places: test_mutations.py",
    ),
    **dict.fromkeys(
        [
            f"flaxnets/parity/diagnosis/hypotheses/{name}.py"
            for name in ("hypothesis", "maps", "norms", "sequences")
        ],
        "one table: test_hypotheses.py",
    ),
    "flaxnets/__main__.py": "the process of a command: edge/test_process.py",
    **dict.fromkeys(
        ["flaxnets/experiment/flax_engine.py", "flaxnets/experiment/torch_engine.py"],
        "both take the same steps: test_engine.py",
    ),
    "flaxnets/parity/row.py": "data only: test_report.py",
    "flaxnets/swap/script.py": "saved, loaded and gone on with: test_handover.py",
    "flaxnets/parity/tolerances.py": "numbers only; test_mutations.py shows that they bite",
}


def _stems(folder):
    return {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("name", flaxnets.names())
def test_architecture_is_complete(name):
    """Spec, both twins, test and README row exist, under one name."""
    for file in (
        f"flaxnets/specs/{name}.py",
        f"flaxnets/models/{name}.py",
        f"torch_ref/models/{name}.py",
        f"parity_tests/models/test_{name}.py",
    ):
        assert (ROOT / file).is_file(), f"{name} lacks {file}"
    assert f"| `{name}` |" in (ROOT / "README.md").read_text(), f"README has no row for {name}"


def test_nothing_is_left_over():
    """No twin and no test stands alone."""
    names = set(flaxnets.names())
    assert _stems("flaxnets/models") == names
    assert _stems("torch_ref/models") == names
    assert _stems("parity_tests/models") == {f"test_{name}" for name in names}


def test_tasks_are_complete():
    """A task is two files and a test, and nothing else names it but the networks' specs."""
    names = set(tasks.names())
    assert _stems("torch_ref/tasks") == names
    assert {f"test_{name}" for name in names} <= _stems("parity_tests/tasks")
    assert {spec.task for name in flaxnets.names() for spec in variants(name).values()} <= {
        "",
        *names,
    }
    for path in [*(ROOT / "flaxnets").rglob("*.py"), *(ROOT / "torch_ref").rglob("*.py")]:
        if path.parent.name not in ("tasks", "specs"):
            said = {
                node.value
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            # Two tasks are called as the one network that they are for.
            assert not said & (names - {*flaxnets.names()}), path


def _modules():
    for path in sorted((ROOT / "flaxnets").rglob("*.py")):
        relative = path.relative_to(ROOT)
        if path.stem != "__init__" and relative.parts[1] not in ("specs", "models"):
            yield relative


@pytest.mark.parametrize("module", list(_modules()), ids=str)
def test_module_has_its_test_file(module):
    """parity_tests mirrors flaxnets file by file."""
    mirror = Path("parity_tests", *module.parts[1:-1], f"test_{module.name}")
    assert (ROOT / mirror).is_file() or str(module) in ELSEWHERE, f"{mirror} is missing"


def test_variants_differ():
    """No two variants of an architecture are the same."""
    for name in flaxnets.names():
        sizes = list(flaxnets.specs.variants(name).values())
        assert len({spec.to_json() for spec in sizes}) == len(sizes), name
