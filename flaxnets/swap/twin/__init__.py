"""From a user's torch module to Flax: a model with the same names and weights, and its source."""

from flaxnets.swap.twin.model import Translation, checked, flax_twin, load, translate
from flaxnets.swap.twin.problems import Problem, TranslationError

__all__ = [
    "Problem",
    "Translation",
    "TranslationError",
    "checked",
    "flax_twin",
    "load",
    "translate",
]
