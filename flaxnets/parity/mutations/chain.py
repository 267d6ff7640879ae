"""Short chains of layers, for faults in layers that no small architecture has."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from flaxnets import layers
from flaxnets.specs import Input
from flaxnets.training.objective import apply

Parts = tuple[nnx.Module, torch.nn.Module, Sequence[Input | np.ndarray]]


class Chain(nnx.Module):
    """Layers that follow each other, by name."""

    def __init__(self, **named: nnx.Module) -> None:
        self.order = tuple(named)
        for name, layer in named.items():
            setattr(self, name, layer)

    def __call__(self, x: Any, *, rngs: nnx.Rngs | None = None) -> Any:
        """One layer after the other."""
        for name in self.order:
            x = apply(getattr(self, name), rngs, x)
        return x


class TorchChain(torch.nn.Module):
    """The same in torch."""

    def __init__(self, **named: torch.nn.Module) -> None:
        super().__init__()
        for name, layer in named.items():
            setattr(self, name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One layer after the other."""
        for layer in self.children():
            x = layer(x)
        return x


class Far(nnx.Module):
    """Numbers far from zero, where E[x^2] - E[x]^2 loses digits."""

    def __call__(self, x: Any) -> Any:
        """Added to all."""
        return x + jnp.asarray(300, x.dtype)


class TorchFar(torch.nn.Module):
    """The same in torch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Added to all."""
        return x + 300


def _chain(given: Input | np.ndarray, **pairs: tuple[nnx.Module, torch.nn.Module]) -> Parts:
    flax = Chain(**{name: pair[0] for name, pair in pairs.items()})
    return flax, TorchChain(**{name: pair[1] for name, pair in pairs.items()}), [given]


def _dense() -> tuple[nnx.Module, torch.nn.Module]:
    return layers.Linear(5, 6, rngs=nnx.Rngs(0)), torch.nn.Linear(5, 6)


ROWS = Input(name="x", shape=(4, 5), axes="bf")
IMAGE = Input(name="x", shape=(2, 7, 6, 4), axes="bhwc")
STEPS = Input(name="x", shape=(3, 4, 5), axes="btf")
WORDS = Input(name="x", shape=(3, 4), axes="bt", high=6)
ZEROS = np.array([[0.0, 1.5, -2.0], [0.5, 0.0, -0.25]])

CHAINS: dict[str, Callable[[], Parts]] = {
    "layer norm": lambda: _chain(
        ROWS, dense=_dense(), norm=(layers.LayerNorm(6), torch.nn.LayerNorm(6))
    ),
    "layer norm far from zero": lambda: _chain(
        ROWS, far=(Far(), TorchFar()), norm=(layers.LayerNorm(5), torch.nn.LayerNorm(5))
    ),
    "rms norm": lambda: _chain(
        ROWS, dense=_dense(), norm=(layers.RMSNorm(6, 1e-5), torch.nn.RMSNorm(6, 1e-5))
    ),
    "group norm": lambda: _chain(IMAGE, norm=(layers.GroupNorm(2, 4), torch.nn.GroupNorm(2, 4))),
    "instance norm": lambda: _chain(
        IMAGE,
        norm=(layers.InstanceNorm2d(4, affine=True), torch.nn.InstanceNorm2d(4, affine=True)),
    ),
    "batch norm": lambda: _chain(
        ROWS, dense=_dense(), norm=(layers.BatchNorm1d(6), torch.nn.BatchNorm1d(6))
    ),
    "average pooling": lambda: _chain(
        IMAGE, pool=(layers.AvgPool2d(3, 2, 1), torch.nn.AvgPool2d(3, 2, 1))
    ),
    "maximum pooling": lambda: _chain(
        IMAGE, pool=(layers.MaxPool2d(3, 2, 1), torch.nn.MaxPool2d(3, 2, 1))
    ),
    "convolution": lambda: _chain(
        IMAGE,
        conv=(
            layers.Conv2d(4, 3, 3, stride=2, padding=1, rngs=nnx.Rngs(0)),
            torch.nn.Conv2d(4, 3, 3, stride=2, padding=1),
        ),
    ),
    "transposed convolution": lambda: _chain(
        IMAGE,
        conv=(
            layers.ConvTranspose2d(4, 3, 3, stride=2, padding=1, rngs=nnx.Rngs(0)),
            torch.nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1),
        ),
    ),
    "dropout": lambda: _chain(
        STEPS, dense=_dense(), drop=(layers.Dropout(0.3), torch.nn.Dropout(0.3))
    ),
    "two dropouts": lambda: _chain(
        STEPS,
        one=(layers.Dropout(0.3), torch.nn.Dropout(0.3)),
        two=(layers.Dropout(0.3), torch.nn.Dropout(0.3)),
    ),
    "embedding": lambda: _chain(
        WORDS,
        embed=(
            layers.Embedding(6, 5, padding_idx=0, rngs=nnx.Rngs(0)),
            torch.nn.Embedding(6, 5, padding_idx=0),
        ),
    ),
    "relu at zero": lambda: _chain(ZEROS, act=(layers.ReLU(), torch.nn.ReLU())),
    "gelu": lambda: _chain(ROWS, dense=_dense(), act=(layers.GELU(), torch.nn.GELU())),
    "leaky relu": lambda: _chain(
        ROWS, dense=_dense(), act=(layers.LeakyReLU(0.2), torch.nn.LeakyReLU(0.2))
    ),
    "prelu": lambda: _chain(ROWS, dense=_dense(), act=(layers.PReLU(6), torch.nn.PReLU(6))),
    "elu": lambda: _chain(ROWS, dense=_dense(), act=(layers.ELU(0.5), torch.nn.ELU(0.5))),
    "dense": lambda: _chain(ROWS, dense=_dense()),
    "attention": lambda: _chain(
        Input(name="x", shape=(3, 5, 6), axes="btf"),
        att=(
            Causal(layers.MultiheadAttention(6, 2, batch_first=True, rngs=nnx.Rngs(0))),
            TorchCausal(torch.nn.MultiheadAttention(6, 2, batch_first=True)),
        ),
    ),
    "gru": lambda: _chain(
        STEPS,
        rnn=(
            First(layers.GRU(5, 4, batch_first=True, rngs=nnx.Rngs(0))),
            TorchFirst(torch.nn.GRU(5, 4, batch_first=True)),
        ),
    ),
    "elman": lambda: _chain(
        STEPS,
        rnn=(
            First(layers.RNN(5, 4, batch_first=True, bidirectional=True, rngs=nnx.Rngs(0))),
            TorchFirst(torch.nn.RNN(5, 4, batch_first=True, bidirectional=True)),
        ),
    ),
    "lstm": lambda: _chain(
        STEPS,
        rnn=(
            First(layers.LSTM(5, 4, batch_first=True, rngs=nnx.Rngs(0))),
            TorchFirst(torch.nn.LSTM(5, 4, batch_first=True)),
        ),
    ),
}


class First(nnx.Module):
    """The outputs of a recurrent layer, without its states."""

    def __init__(self, layer: nnx.Module) -> None:
        self.layer = layer

    def __call__(self, x: Any) -> Any:
        """Outputs only."""
        return self.layer(x)[0]


class TorchFirst(torch.nn.Module):
    """The same in torch."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs only."""
        return self.layer(x)[0]


class Causal(nnx.Module):
    """Attention of a sequence to what came before."""

    def __init__(self, layer: nnx.Module) -> None:
        self.layer = layer

    def __call__(self, x: Any) -> Any:
        """Outputs only."""
        later = jnp.triu(jnp.ones((x.shape[1], x.shape[1]), bool), 1)
        return self.layer(x, x, x, attn_mask=later, need_weights=False)[0]


class TorchCausal(torch.nn.Module):
    """The same in torch."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs only."""
        later = torch.ones(x.size(1), x.size(1), dtype=torch.bool).triu(1)
        return self.layer(x, x, x, attn_mask=later, need_weights=False)[0]
