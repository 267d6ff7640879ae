"""What torch.nn leaves to its users."""

from torch_ref.layers.activation import activation

__all__ = ["activation"]
