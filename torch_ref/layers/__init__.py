"""What torch.nn leaves to its users."""

from torch_ref.layers.activation import activation
from torch_ref.layers.loss import vae_loss
from torch_ref.layers.pooling import MinPool1d, MinPool2d, MinPool3d
from torch_ref.layers.positional import LearnedPositionalEncoding, SinusoidalPositionalEncoding
from torch_ref.layers.shape import CenterCrop

__all__ = [
    "CenterCrop",
    "LearnedPositionalEncoding",
    "MinPool1d",
    "MinPool2d",
    "MinPool3d",
    "SinusoidalPositionalEncoding",
    "activation",
    "vae_loss",
]
