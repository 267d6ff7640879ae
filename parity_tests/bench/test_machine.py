"""The machine's facts are those of the installation, and memory that is held is counted."""

import subprocess
import sys

import jax
import numpy as np

from flaxnets.bench import machine


def test_facts():
    """Versions are the imported ones, and a package that is not there is absent."""
    facts = machine.facts()
    assert facts["jax"] == jax.__version__
    assert facts["numpy"] == np.__version__
    assert facts["cpu"]
    assert int(facts["cores"]) >= 1


def test_absent_package(monkeypatch):
    """A package that is not installed is said to be absent."""
    monkeypatch.setattr(machine, "PACKAGES", ("no-such-package",))
    assert machine.facts()["no-such-package"] == "absent"


def test_peak_memory_counts_what_was_held():
    """80 MB that a process held and gave back raise its peak, and a large parent does not."""
    code = (
        "import numpy as np; from flaxnets.bench.machine import peak_memory\n"
        "before = peak_memory(); np.ones(10_000_000).sum(); print(before, peak_memory())"
    )
    held = np.ones(2**26)  # of 8 bytes, in the parent
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    before, after = map(int, done.stdout.split())
    assert 75e6 < after - before < 100e6
    assert before < held.nbytes
