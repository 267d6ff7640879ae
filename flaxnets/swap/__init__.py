"""One backend in place of the other inside research code that already works."""

from flaxnets.swap.twin import flax_twin

__all__ = ["flax_twin"]
