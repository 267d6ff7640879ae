"""What torch.nn leaves to its users."""

from torch_ref.layers.activation import activation
from torch_ref.layers.loss import vae_loss

__all__ = ["activation", "vae_loss"]
