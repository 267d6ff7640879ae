"""The two sides of every task are made alike."""

import inspect
from importlib import import_module

import pytest

import flaxnets
import torch_ref.tasks
from flaxnets import specs, tasks


@pytest.mark.parametrize("name", flaxnets.names())
def test_same_parts(name):
    """Both sides train the same parts of a model in the same order, for every variant."""
    for spec in specs.variants(name).values():
        if spec.task:
            ours, theirs = tasks.of(spec).objectives(spec), torch_ref.tasks.objectives(spec)
            assert list(ours) == list(theirs)


@pytest.mark.parametrize("task", tasks.names())
def test_same_options(task):
    """Both sides of a task understand the same options, whose defaults are the same."""
    modules = (import_module(f"{room}.tasks.{task}") for room in ("flaxnets", "torch_ref"))
    ours, theirs = (inspect.signature(module.objectives).parameters for module in modules)
    assert [(x.name, x.default) for x in ours.values()] == [
        (x.name, x.default) for x in theirs.values()
    ]
