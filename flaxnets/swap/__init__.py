"""One backend in place of the other inside research code that already works.

What needs torch is imported when it is asked for.
"""

import importlib
from typing import Any

_PLACES = {
    "as_torch": "torch_module",
    "as_flax": "flax_module",
    "flax_function": "flax_call",
    "torch_function": "torch_call",
    "flax_twin": "twin",
    "load_handover": "script",
    "save_handover": "script",
    "to_jax": "arrays",
    "to_torch": "arrays",
    "SwapError": "arrays",
    "CopyWarning": "arrays",
}
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"flaxnets.swap.{_PLACES[name]}"), name)
