"""torch.nn's layers: each with options of its own and what the twin builds in its place."""

import pytest
import torch
from torch import nn

from flaxnets import layers as house_layers
from flaxnets.swap.twin import TranslationError, translate
from flaxnets.swap.twin.layers import built, house, layer, text
from parity_tests.swap.twin.agreement import Applied, agree

torch.manual_seed(0)
ROWS = torch.randn(3, 4, dtype=torch.float64)
SEQUENCE = torch.randn(3, 5, 4, dtype=torch.float64)
LINE = torch.randn(2, 4, 8, dtype=torch.float64)
IMAGE = torch.randn(2, 4, 6, 8, dtype=torch.float64)
VOLUME = torch.randn(2, 2, 4, 4, 6, dtype=torch.float64)
INDICES = torch.tensor([[0, 1, 2], [2, 3, 4]])
INPUTS = {"1d": LINE, "2d": IMAGE, "3d": VOLUME}


def _spatial(dims):
    """Layers of so many spatial axes, each with what is not its default."""
    x = INPUTS[dims]
    channels = x.shape[1]
    some = {
        f"Conv{dims}": lambda k: k(channels, 4, 3, stride=2, padding=1, groups=2, bias=False),
        f"ConvTranspose{dims}": lambda k: k(channels, 3, 3, stride=2, output_padding=1),
        f"MaxPool{dims}": lambda k: k(3, stride=2, padding=1, ceil_mode=True),
        f"AvgPool{dims}": lambda k: k(2, padding=1, count_include_pad=False),
        f"LPPool{dims}": lambda k: k(3, 2),
        f"AdaptiveAvgPool{dims}": lambda k: k(3),
        f"AdaptiveMaxPool{dims}": lambda k: k(2),
        f"BatchNorm{dims}": lambda k: k(channels, eps=1e-3, momentum=0.3),
        f"InstanceNorm{dims}": lambda k: k(channels, affine=True),
        f"Dropout{dims}": lambda k: k(0.2),
        f"ZeroPad{dims}": lambda k: k(1),
        f"ConstantPad{dims}": lambda k: k(1, 2.5),
        f"ReflectionPad{dims}": lambda k: k(1),
        f"ReplicationPad{dims}": lambda k: k(2),
        f"CircularPad{dims}": lambda k: k(1),
    }
    return {name: (make(getattr(nn, name)), x) for name, make in some.items()}


LAYERS = {
    "Linear": (nn.Linear(4, 3, bias=False), SEQUENCE),
    "Bilinear": (nn.Bilinear(4, 4, 3), ROWS, ROWS + 1),
    **_spatial("1d"),
    **_spatial("2d"),
    **_spatial("3d"),
    "LayerNorm": (nn.LayerNorm(4, eps=1e-3), SEQUENCE),
    "RMSNorm": (nn.RMSNorm((5, 4)), SEQUENCE),
    "GroupNorm": (nn.GroupNorm(2, 4), IMAGE),
    "LocalResponseNorm": (nn.LocalResponseNorm(2, alpha=0.1), IMAGE),
    "Dropout": (nn.Dropout(0.3), IMAGE),
    "AlphaDropout": (nn.AlphaDropout(), ROWS),
    "FeatureAlphaDropout": (nn.FeatureAlphaDropout(), IMAGE),
    "Embedding": (nn.Embedding(5, 3, padding_idx=1), INDICES),
    "EmbeddingBag": (nn.EmbeddingBag(5, 3, mode="sum"), INDICES),
    "RNN": (nn.RNN(4, 3, nonlinearity="relu", batch_first=True), SEQUENCE),
    "LSTM": (nn.LSTM(4, 3, num_layers=2, bidirectional=True, bias=False), SEQUENCE),
    "GRU": (nn.GRU(4, 3, batch_first=True), SEQUENCE, ROWS[None, :, :3]),
    "RNNCell": (nn.RNNCell(4, 3, nonlinearity="relu"), ROWS),
    "LSTMCell": (nn.LSTMCell(4, 3), ROWS),
    "GRUCell": (nn.GRUCell(4, 4, bias=False), ROWS, ROWS),
    "MultiheadAttention": (nn.MultiheadAttention(4, 2, add_bias_kv=True), *3 * [SEQUENCE]),
    "Transformer": (nn.Transformer(4, 2, 1, 2, 5, batch_first=True), SEQUENCE, SEQUENCE + 1),
    "TransformerEncoderLayer": (nn.TransformerEncoderLayer(4, 2, 5, norm_first=True), SEQUENCE),
    "TransformerDecoderLayer": (nn.TransformerDecoderLayer(4, 2, 5), SEQUENCE, SEQUENCE[:2]),
    "TransformerEncoder": (
        nn.TransformerEncoder(
            nn.TransformerEncoderLayer(4, 2, 5, activation="gelu", batch_first=True), 2
        ),
        SEQUENCE,
    ),
    "TransformerDecoder": (
        nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 5), 1, nn.LayerNorm(4)),
        SEQUENCE,
        SEQUENCE[:2],
    ),
    "Flatten": (nn.Flatten(1, 2), IMAGE),
    "Unflatten": (nn.Unflatten(1, (2, 2, 1)), ROWS),
    "PixelShuffle": (nn.PixelShuffle(2), IMAGE),
    "PixelUnshuffle": (nn.PixelUnshuffle(2), IMAGE),
    "Upsample": (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), IMAGE),
    "PReLU": (nn.PReLU(4), IMAGE),
    "RReLU": (nn.RReLU(0.2, 0.4), IMAGE),
    "LeakyReLU": (nn.LeakyReLU(0.2), IMAGE),
    "ELU": (nn.ELU(0.5), ROWS),
    "CELU": (nn.CELU(0.5), ROWS),
    "Hardtanh": (nn.Hardtanh(-0.5, 2), ROWS),
    "Hardshrink": (nn.Hardshrink(0.2), ROWS),
    "Softshrink": (nn.Softshrink(0.2), ROWS),
    "Threshold": (nn.Threshold(0.1, 20), ROWS),
    "Softplus": (nn.Softplus(2, 3), ROWS),
    "GELU": (nn.GELU("tanh"), ROWS),
    "GLU": (nn.GLU(1), IMAGE),
    "Softmax": (nn.Softmax(1), IMAGE),
    "LogSoftmax": (nn.LogSoftmax(dim=-3), IMAGE),
    "Softmin": (nn.Softmin(2), IMAGE),
    "Softmax2d": (nn.Softmax2d(), IMAGE),
    **{
        name: (getattr(nn, name)(), ROWS)
        for name in (
            *("ReLU", "ReLU6", "SELU", "Tanh", "Sigmoid", "LogSigmoid", "Softsign"),
            *("Tanhshrink", "Hardsigmoid", "Hardswish", "SiLU", "Mish"),
        )
    },
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_layer(name):
    """The layer and the one that is built in its place: outputs and gradients of inputs."""
    module, *inputs = LAYERS[name]
    assert house(module) == name
    # torch takes 1/6 in float32 in hardsigmoid's gradient, in float64 as well.
    # Of three spatial axes the gradient is that of two.
    source = agree(module, *inputs, gradients=name != "Hardsigmoid" and "3d" not in name)
    assert f"{name}(" in source


def test_all_layers_have_a_case():
    """torch.nn's layers that the house has, and the cases."""
    both = {name for name in house_layers.__all__ if isinstance(getattr(nn, name, None), type)}
    assert LAYERS.keys() == both


def test_text():
    """Arguments that are not torch's defaults, and no others, are written."""
    assert text(built(nn.Conv2d(3, 8, 3), "Conv2d"), {}) == "Conv2d(3, 8, 3, rngs=rngs)"
    assert text(built(nn.MaxPool2d(2, 2), "MaxPool2d"), {}) == "MaxPool2d(2)"
    strided = built(nn.Conv2d(3, 8, 4, 4), "Conv2d")
    assert text(strided, {}) == "Conv2d(3, 8, 4, stride=4, rngs=rngs)"
    assert text(built(nn.LayerNorm((4, 4)), "LayerNorm"), {}) == "LayerNorm((4, 4))"
    assert text(layer("ReLU"), {}, frozenset(["ReLU"])) == "layers.ReLU()"


@pytest.mark.parametrize(
    ("module", "x", "reason"),
    [
        (nn.Embedding(5, 3, scale_grad_by_freq=True), INDICES, "scale_grad_by_freq"),
        (nn.Fold((6, 8), 1), IMAGE.flatten(2), "col2im|fold has no translation"),
    ],
)
def test_refused(module, x, reason):
    """What changes results and has no equal is named."""
    with pytest.raises(TranslationError, match=reason):
        translate(Applied(module), [x])
