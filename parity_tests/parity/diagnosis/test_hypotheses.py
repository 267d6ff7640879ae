"""The table of hypotheses: what is tried for a layer, and in which order."""

import copy

import pytest
import torch
from torch import nn

from flaxnets.parity.diagnosis import hypotheses

X = torch.rand(2, 3, 6, 5, dtype=torch.float64)


def _texts(module):
    return [h.text.format(m=module) for h in hypotheses.of(module)]


def test_options_are_named_with_torchs_value():
    """The text says what was tried and what torch has."""
    assert "eps 1e-06, not 1e-05" in _texts(nn.LayerNorm(3))
    assert "negative_slope 0.01, not 0.2" in _texts(nn.LeakyReLU(0.2))


def test_order_of_gates():
    """Every other order of the gates is tried: 23 of four, 5 of three."""
    assert sum("gates in the order" in text for text in _texts(nn.LSTM(2, 3))) == 23
    assert sum("gates in the order" in text for text in _texts(nn.GRU(2, 3))) == 5


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (nn.BatchNorm2d(3), "eps outside the square root"),
        (nn.BatchNorm2d(3).eval(), "eps outside the square root"),
        (nn.GroupNorm(3, 3), "unbiased variance, n/(n-1)"),
        (nn.LayerNorm(5), "unbiased variance, n/(n-1)"),
        (nn.RMSNorm(5, 1e-5), "eps outside the square root"),
        (nn.Conv2d(3, 4, 3, stride=2), "SAME padding, not (0, 0)"),
        (nn.Conv2d(3, 4, 3, padding=1), "input shifted by -1 pixel along axis 3"),
        (nn.ConvTranspose2d(3, 4, 3), "padding 1, not (0, 0)"),
        (nn.AvgPool2d(3, 2, 1), "count_include_pad False, not True"),
        (nn.MaxPool2d(3, 2, 1), "mean in place of the maximum"),
        (nn.Flatten(), "channels last"),
        (nn.Softmax(1), "softmax over axis 2, not 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_hypothesis_differs_from_torch(module, text):
    """A hypothesis runs on its layer, and its result is not torch's."""
    module = module.double()
    found = next(h for h in hypotheses.of(module) if h.text.format(m=module) == text)
    expected, other = module(X), found.output(module, X)
    assert expected.shape != other.shape or not torch.allclose(expected, other, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "text",
    [
        "mask dropped",
        "mask inverted",
        "no scale 1/sqrt(d)",
        "scaled twice by 1/sqrt(d)",
        "heads split in another order",
        "q and k interchanged",
        "k and v interchanged",
    ],
)
def test_attention(text):
    """Hypotheses of attention run, and none of them is torch's result."""
    module = nn.MultiheadAttention(6, 2, batch_first=True).double()
    x = torch.rand(2, 5, 6, dtype=torch.float64)
    mask = {"attn_mask": torch.ones(5, 5).tril(-1).bool().T}
    (found,) = [h for h in hypotheses.of(module) if h.text == text]
    expected = module(x, x, x, **mask)[0]
    other = found.output(copy.deepcopy(module), x, x, x, **mask)[0]
    assert other.shape == expected.shape
    assert not torch.allclose(expected, other, rtol=1e-9, equal_nan=True)
