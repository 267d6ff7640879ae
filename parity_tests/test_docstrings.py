"""Every public name says what it is, and what users import shows how it is used."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    path.relative_to(ROOT)
    for package in ("flaxnets", "torch_ref")
    for path in (ROOT / package).rglob("*.py")
)
# Classes of one kind, whose methods are documented once, at the first of them.
FIRST_OF_ITS_KIND = {
    "flaxnets/experiment/flax_engine.py": ("flaxnets/experiment/engine.py", "Engine"),
    "flaxnets/experiment/torch_engine.py": ("flaxnets/experiment/engine.py", "Engine"),
    "flaxnets/layers/recurrence.py": ("flaxnets/layers/recurrence.py", "Elman"),
}
# Where `__call__` is documented at its class: its signature says its shapes.
SHAPED = ("flaxnets/layers", "flaxnets/models")

FACES = [
    "flaxnets",
    *(f"flaxnets.{name}" for name in ("bench", "bridge", "data", "layers", "parity", "swap")),
    "flaxnets.training",
    "torch_ref.layers",
]
# What is imported by users and has no example, and why.
WITHOUT_EXAMPLE = {
    "flaxnets.bench.bench": "it takes seconds for every network, in processes of their own",
    "flaxnets.bridge.BridgeError": "an error, named under Raises of what raises it",
    "flaxnets.data.DataError": "an error, named under Raises of what raises it",
    "flaxnets.parity.ParityError": "an error, named under Raises of what raises it",
    "flaxnets.swap.CopyWarning": "a warning, which depends on the memory that is passed",
    "flaxnets.swap.SwapError": "an error, named under Raises of what raises it",
}


def _undocumented(source: str, file: str) -> Iterator[str]:
    """Public modules, classes, functions and methods of a file that have no docstring."""
    tree = ast.parse(source)
    if not ast.get_docstring(tree):
        yield file
    place, kind = FIRST_OF_ITS_KIND.get(file, (file, ""))
    said = {
        method.name
        for node in (tree if place == file else ast.parse((ROOT / place).read_text())).body
        if isinstance(node, ast.ClassDef) and node.name == kind
        for method in node.body
        if isinstance(method, ast.FunctionDef) and ast.get_docstring(method)
    }
    yield from _without(tree, file, said | ({"__call__"} if file.startswith(SHAPED) else set()))


def _without(scope: ast.AST, name: str, said: set[str]) -> Iterator[str]:
    """The undocumented names of a module or class; a function's own are nobody else's."""
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("_") and node.name != "__call__":
                continue
            elsewhere = isinstance(scope, ast.ClassDef) and node.name in said
            if not ast.get_docstring(node) and not elsewhere:
                yield f"{name}: {node.name}"
            if isinstance(node, ast.ClassDef):
                yield from _without(node, f"{name}: {node.name}", said)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _without(node, name, said)


def test_every_public_name_has_a_docstring():
    """The public names of both packages and those with a docstring are the same."""
    missing = [
        name
        for path in MODULES
        for name in _undocumented((ROOT / path).read_text(), path.as_posix())
    ]
    assert not missing, f"{len(missing)} without a docstring: {', '.join(missing)}"


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("class A:\n    '''A.'''\n    def f(self): pass", ["x.py: A: f"]),
        ("class A:\n    def _f(self): pass", ["x.py: A"]),
        ("if True:\n    async def f(): pass", ["x.py: f"]),
        ("def f():\n    '''F.'''\n    def inner(): pass", []),
    ],
)
def test_missing_docstring_is_found(planted, found):
    """What is planted without a docstring and what the count finds."""
    assert list(_undocumented(f"'''X.'''\n{planted}", "x.py")) == found
    assert next(_undocumented(planted, "x.py")) == "x.py"  # the module itself


@pytest.mark.parametrize("face", FACES)
def test_what_users_import_has_an_example(face):
    """Every class and function in `__all__` has an example, or a reason why not."""
    module = importlib.import_module(face)
    shown = {
        f"{face}.{name}": ">>>" in (getattr(module, name).__doc__ or "")
        for name in module.__all__
        if callable(getattr(module, name))
    }
    missing = {name for name, example in shown.items() if not example}
    reasons = {name for name in WITHOUT_EXAMPLE if name.rpartition(".")[0] == face}
    assert missing == reasons, "examples are missing, or reasons left over"
