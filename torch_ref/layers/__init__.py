"""What torch.nn leaves to its users."""

from torch_ref.layers.activation import activation
from torch_ref.layers.pooling import MinPool1d, MinPool2d, MinPool3d

__all__ = ["MinPool1d", "MinPool2d", "MinPool3d", "activation"]
