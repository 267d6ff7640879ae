"""What pip installs: every file of the packages, and versions that pyproject.toml admits."""

import itertools
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python ::" in line]


def test_wheel(tmp_path):
    """The wheel holds the packages' files, data among them, and says that it is typed."""
    hatchling = pytest.importorskip("hatchling.builders.wheel", reason="an install without [dev]")
    (wheel,) = hatchling.WheelBuilder(str(ROOT)).build(directory=str(tmp_path))
    held = set(zipfile.ZipFile(wheel).namelist())
    own = {
        path.relative_to(ROOT).as_posix()
        for package in ("flaxnets", "torch_ref")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert own <= held
    assert {"flaxnets/py.typed", "torch_ref/py.typed", "flaxnets/page/notebook.mplstyle"} <= held


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints(python):
    """What CI installs on a supported Python is pinned, once, to what pyproject.toml admits."""
    assert python in SpecifierSet(PROJECT["requires-python"])
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        pin = Requirement(line) if line and not line.startswith("#") else None
        if pin and (pin.marker is None or pin.marker.evaluate({"python_version": python})):
            (exact,) = pin.specifier
            assert exact.operator == "=="
            assert pins.setdefault(canonicalize_name(pin.name), exact.version) == exact.version
    for wanted in itertools.chain(
        PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()
    ):
        requirement = Requirement(wanted)
        version = pins[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement} is pinned to {version}"
