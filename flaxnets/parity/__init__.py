"""Proof that a Flax model and a torch model are the same function.

>>> from flax import nnx
>>> import torch
>>> from flaxnets import parity, specs
>>> report = parity.check(
...     nnx.Linear(4, 3, rngs=nnx.Rngs(0)), torch.nn.Linear(4, 3),
...     [specs.Input(name="x", shape=(2, 4), axes="bf")], checks=["forward", "gradients"],
... )
>>> report.passed
True
"""

from flaxnets.parity.architectures import check_architecture, variants
from flaxnets.parity.checks import CHECKS
from flaxnets.parity.pair import Pair
from flaxnets.parity.proof import check
from flaxnets.parity.report import ParityError, Report
from flaxnets.parity.row import Row
from flaxnets.parity.trajectory import METHODS, Task
from flaxnets.parity.verdict import Diagnosis, diagnose

__all__ = [
    "CHECKS",
    "METHODS",
    "Diagnosis",
    "Pair",
    "ParityError",
    "Report",
    "Row",
    "Task",
    "check",
    "check_architecture",
    "diagnose",
    "variants",
]
