"""One backend in place of the other inside research code that already works.

What needs torch is imported when it is asked for.
"""

import importlib
from typing import Any

_PLACES = {
    "load_handover": "flaxnets.swap.handover",
    "save_handover": "flaxnets.swap.handover",
}
__all__ = ["load_handover", "save_handover"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
