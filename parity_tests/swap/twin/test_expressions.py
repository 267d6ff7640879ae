"""Pieces of text: what they evaluate to, and how ruff would break them."""

import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

from flaxnets.swap.twin.expressions import SUM, TERM, Expr, chosen, literal, split, wrapped


@pytest.mark.parametrize(
    "value",
    [0, -3, 2.5, 1e-12, True, None, "a 'b' \"c\"", (1,), (1, (2, 3)), [1, -2.5], (), float("inf")],
)
def test_literal(value):
    """A constant, and what its text evaluates to."""
    assert eval(literal(value).text, {"jnp": jnp}) == value


def test_within():
    """Parentheses, and the value with and without them."""
    a_sum = Expr("2 + 3", rank=SUM)
    assert eval(f"{a_sum.within(TERM)} * 4") == 20
    assert a_sum.within(SUM) == "2 + 3"
    with pytest.raises(TypeError, match="no literal of type object"):
        literal(object())


def test_split():
    """The parts between commas, and those that Python sees."""
    text = "f(a, [b, c]), {'d, e': 1}, \"x, y\", (g, h)"
    assert split(text) == ["f(a, [b, c])", "{'d, e': 1}", '"x, y"', "(g, h)"]


def test_chosen():
    """One statement in either mode, and the two that it stands for."""
    (line,) = chosen(["y = f(x * 0, p=0.0)"], ["y = f(x * 2, p=0.5)"])
    for deterministic, expected in ((True, "y = f(x * 0, p=0.0)"), (False, "y = f(x * 2, p=0.5)")):
        model = type("Model", (), {"deterministic": deterministic})
        names = {"self": model, "x": 7, "f": lambda value, p: (value, p)}
        found, wanted = dict(names), dict(names)
        exec(line, found)
        exec(expected, wanted)
        assert found["y"] == wanted["y"]
    assert chosen(["a = b"], ["a = c"]) is None
    assert chosen(["a = b"], []) is None


LONG = [
    "x = function(" + ", ".join(f"argument_{i}" for i in range(5)) + ")",
    "x = function(" + ", ".join(f"a_longer_argument_{i}" for i in range(9)) + ")",
    "self.layers = nnx.Sequential("
    + ", ".join(f"Linear({i}, 64, rngs=rngs)" for i in range(9))
    + ")",
    "return " + ", ".join(f"a_longer_result_{i}(x)" for i in range(9)),
    "x = outer(inner(" + ", ".join(f"argument_number_{i}" for i in range(9)) + "))",
    "y = self.attention(query, key, value, mask=jnp.where(mask, a_long_name_of_a, other), bias=b)",
]


@pytest.mark.parametrize("statement", LONG)
def test_wrapped(statement, tmp_path):
    """Lines as they are broken here and by ruff."""
    text = "\n".join(["def f():", *wrapped(statement, 4)]) + "\n"
    compile(text, "f.py", "exec")
    assert max(map(len, text.splitlines())) <= 100
    ruff = shutil.which("ruff") or str(Path(sys.prefix, "bin/ruff"))
    if Path(ruff).exists():
        command = [ruff, "format", "--line-length", "100", "--isolated", "-"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
        assert text == done.stdout
