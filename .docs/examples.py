"""What the docstrings of this repository mean, for the pages that are made of them."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*?(?=\n[ \t]*\n|\Z)", re.MULTILINE | re.DOTALL)
SHAPES = "Shapes are in the signature; see the class."


class Examples(griffe.Extension):
    """Examples become code blocks, and `__call__` without a docstring refers to its class."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            text = EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
            obj.docstring.value = text
        elif obj.name == "__call__":
            obj.docstring = griffe.Docstring(SHAPES, parent=obj)
