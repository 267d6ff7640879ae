"""`flaxnets translate`: a class in a user's file, built, translated and proved."""

import ast
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flaxnets.specs import Input
from flaxnets.swap.twin.model import IMAGES, checked
from flaxnets.swap.twin.problems import TranslationError

INPUT = re.compile(r"(\d+(?:,\d+)*)(?::(int)(?:<(\d+))?)?")
AXES = "btfghi"


def source_of(
    target: str, inputs: Sequence[str], args: Sequence[str] = (), kwargs: Sequence[str] = ()
) -> tuple[str, Mapping[str, np.ndarray]]:
    """The source of a class's twin, proved, and the constants that it reads.

    Args:
        target: "FILE.py:Class"; the file is run.
        inputs: of the forward, see `described`.
        args: of the constructor, as Python literals; what is none is a string.
        kwargs: the same by name, "name=value".

    Raises:
        TranslationError: a file, class, argument or input that will not do, or no twin.
    """
    examples = [described(text, index) for index, text in enumerate(inputs)]
    kind = _class(target)
    named = {}
    for text in kwargs:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            raise TranslationError(f"--kwargs {text!r} is not of the form name=value")
        named[name] = _literal(value)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = kind(*map(_literal, args), **named)
    except Exception as error:  # whatever a user's constructor raises
        raise TranslationError(f"{target} cannot be built: {_first_line(error)}") from error
    translation = checked(module, examples)[1]
    return translation.source, translation.constants


def described(text: str, index: int = 0) -> Input:
    """An input from its shape in torch's layout, and ":int<HIGH>" for integers below HIGH.

    Real inputs of four and five axes are images.

    >>> described("2,3,8,9").shape, described("2,7:int<50").high, described("2,7:int").high
    ((2, 8, 9, 3), 50, 2)
    """
    found = INPUT.fullmatch(text)
    if found is None:
        raise TranslationError(f"--input {text!r} is not of the form 1,3,32,32 or 2,7:int<50")
    shape = tuple(map(int, found[1].split(",")))
    if found[2]:
        high = int(found[3] or 2)
        return Input(name=str(index), shape=shape, axes=AXES[: len(shape)], high=high)
    axes = IMAGES.get(len(shape), AXES[: len(shape)])
    if "c" in axes:
        shape = (shape[0], *shape[2:], shape[1])
    return Input(name=str(index), shape=shape, axes=axes)


def _class(target: str) -> Any:
    file, colon, name = target.rpartition(":")
    path = Path(file)
    if not colon or path.suffix != ".py":
        raise TranslationError(f"{target!r} is not of the form FILE.py:Class")
    if not path.is_file():
        raise TranslationError(f"{file} is no file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent.resolve()))  # for the files beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises
        raise TranslationError(f"{file} cannot be run: {_first_line(error)}") from error
    finally:
        sys.path.pop(0)
    kind = getattr(module, name, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.nn.Module)):
        raise TranslationError(f"{file} has no torch.nn.Module of the name {name}")
    return kind


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
