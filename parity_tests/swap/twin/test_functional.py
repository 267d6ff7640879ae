"""torch.nn.functional: torch's function and its translation."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)

from flaxnets.swap.twin import TranslationError, translate
from flaxnets.swap.twin.functional import FUNCTIONS
from parity_tests.swap.twin.agreement import Applied, agree

torch.manual_seed(0)
X = torch.randn(3, 4, 6, dtype=torch.float64)
IMAGE = torch.randn(2, 4, 6, 5, dtype=torch.float64)
VOLUME = torch.randn(2, 2, 4, 4, 4, dtype=torch.float64)
SQUARE = torch.randn(4, 4, dtype=torch.float64)
PROBABLE = torch.rand(3, 4, dtype=torch.float64) * 0.8 + 0.1
INDICES = torch.tensor([[2, 0, 1], [1, 3, 0]])
LABELS = torch.tensor([1, 0, 3, 2])
KERNEL = torch.randn(4, 2, 3, dtype=torch.float64)
HEADS = torch.randn(2, 3, 4, 6, dtype=torch.float64)  # the axes are b h t d: given as a map

CASES = {
    "relu": (lambda x: F.relu(x) + torch.relu(x) + x.relu(), IMAGE),
    "gelu": (lambda x: F.gelu(x) + F.gelu(x, approximate="tanh"), X),
    "leaky_relu": (lambda x: F.leaky_relu(x) + F.leaky_relu(x, 0.2), IMAGE),
    "elu": (lambda x: F.elu(x) + F.elu(x, 0.5, False), X),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 2.0), X),
    "threshold": (lambda x: F.threshold(x, 0.1, -3.0), X),
    "softplus": (lambda x: F.softplus(x) + F.softplus(x, beta=2, threshold=1), X),
    "prelu": (lambda x, a: F.prelu(x, a[0]), IMAGE, SQUARE),
    "glu": (lambda x: (F.glu(x), F.glu(x, 1)), IMAGE[..., :4]),
    "softmax": (lambda x: F.softmax(x, 1) + torch.softmax(x, -1) + x.softmax(2), IMAGE),
    "log_softmax": (lambda x: F.log_softmax(x, dim=1) + F.log_softmax(x, 3), IMAGE),
    "softmin": (lambda x: F.softmin(x, dim=1), IMAGE),
    "logsigmoid": (F.logsigmoid, X),
    "log_sigmoid": (F.logsigmoid, X),
    **{name: (getattr(F, name), X) for name in ("relu6", "silu", "selu", "softsign", "celu")},
    **{name: (getattr(F, name), X) for name in ("hardsigmoid", "hardswish", "hardshrink", "mish")},
    **{name: (getattr(F, name), X) for name in ("softshrink", "tanhshrink")},
    "dropout": (lambda x: F.dropout(x, 0.5, False) * F.dropout(x, p=0.0), X),
    "dropout1d": (lambda x: F.dropout1d(x, 0.5, False), X),
    "dropout2d": (lambda x: F.dropout2d(x, 0.5, False), IMAGE),
    "dropout3d": (lambda x: F.dropout3d(x, 0.5, False), VOLUME),
    "alpha_dropout": (lambda x: F.alpha_dropout(x, 0.5, False), X),
    "feature_alpha_dropout": (lambda x: F.feature_alpha_dropout(x, 0.5, False), IMAGE),
    "max_pool1d": (lambda x: F.max_pool1d(x, 2), X),
    "max_pool2d": (lambda x: F.max_pool2d(x, (3, 2), 2, padding=1, ceil_mode=True), IMAGE),
    "max_pool3d": (lambda x: F.max_pool3d(x, 2), VOLUME),
    "avg_pool1d": (lambda x: F.avg_pool1d(x, 3, 1, 1), X),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), IMAGE),
    "avg_pool3d": (lambda x: F.avg_pool3d(x, 2), VOLUME),
    "lp_pool1d": (lambda x: F.lp_pool1d(x.abs(), 2, 2), X),
    "lp_pool2d": (lambda x: F.lp_pool2d(x.abs(), 3, 2, stride=1), IMAGE),
    "lp_pool3d": (lambda x: F.lp_pool3d(x.abs(), 2, 2), VOLUME),
    "adaptive_avg_pool1d": (lambda x: F.adaptive_avg_pool1d(x, 4), X),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (1, 2)).flatten(1), IMAGE),
    "adaptive_avg_pool3d": (lambda x: F.adaptive_avg_pool3d(x, 3), VOLUME),
    "adaptive_max_pool1d": (lambda x: F.adaptive_max_pool1d(x, 4), X),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, 2), IMAGE),
    "adaptive_max_pool3d": (lambda x: F.adaptive_max_pool3d(x, 3), VOLUME),
    "conv1d": (lambda x, k: F.conv1d(x, k, stride=2, padding=1, groups=2), X, KERNEL),
    "conv2d": (
        lambda x, k: F.conv2d(
            x, k.unsqueeze(-1).repeat(1, 2, 1, 2), k[:, 0, 0], padding=(2, 1), dilation=2
        ),
        IMAGE,
        KERNEL,
    ),
    "conv3d": (
        lambda x, k: F.conv3d(x, k[..., None, None].expand(-1, -1, 3, 2, 2)),
        VOLUME,
        KERNEL,
    ),
    "interpolate": (
        lambda x: (
            F.interpolate(x, scale_factor=2),
            F.interpolate(x, x.shape[2:], mode="bilinear"),
        ),
        IMAGE,
    ),
    "pad": (
        lambda x: (
            F.pad(x, (1, 2)),
            F.pad(x, (1, 0, 0, 2, 1, 1), value=3),
            F.pad(x, (-1, 1)),
            F.pad(x, (2, 1, 1, 1), mode="reflect"),
            F.pad(x, (1, 1, 1, 1), "replicate"),
            F.pad(x, (1, 2, 0, 1), mode="circular"),
        ),
        IMAGE,
    ),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), IMAGE),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x[:, :, :4, :4], 2), IMAGE),
    "local_response_norm": (lambda x: F.local_response_norm(x, 3, alpha=0.1), IMAGE),
    "layer_norm": (
        lambda x, a: F.layer_norm(x.mT, (4,), a[0], a[1], 1e-3) + F.layer_norm(x.mT, (6, 4)),
        X,
        SQUARE,
    ),
    "group_norm": (lambda x, a: F.group_norm(x, 2, a[0], a[1]) + F.group_norm(x, 4), IMAGE, SQUARE),
    "normalize": (lambda x: F.normalize(x) + F.normalize(x, dim=-1), IMAGE),
    "cosine_similarity": (lambda x: F.cosine_similarity(x, x.flip(1).cos(), dim=-1), X),
    "bilinear": (lambda a, w: F.bilinear(a, a + 1, w, w[:, 0, 0]), SQUARE, X[..., :4]),
    "embedding": (
        lambda n, a: F.embedding(n, a) + F.embedding(n, a, padding_idx=1),
        INDICES,
        SQUARE,
    ),
    "one_hot": (lambda n: F.one_hot(n, 4), INDICES),
    "scaled_dot_product_attention": (
        lambda q, m: (
            F.scaled_dot_product_attention(q, q + 1, q.cos(), m > 0),
            F.scaled_dot_product_attention(q, q, q, m, scale=0.3),
            F.scaled_dot_product_attention(q, q, q, is_causal=True),
            F.scaled_dot_product_attention(q[0], q[1], q[0], m[None] > -9),
        ),
        HEADS,
        SQUARE,
    ),
    "mse_loss": (lambda a: F.mse_loss(a, a.sin()), SQUARE),
    "l1_loss": (lambda a: F.l1_loss(a, a.sin(), reduction="sum"), SQUARE),
    "smooth_l1_loss": (lambda a: F.smooth_l1_loss(a, a.sin(), beta=0.5), SQUARE),
    "huber_loss": (lambda a: F.huber_loss(a, a.sin(), delta=0.5), SQUARE),
    "kl_div": (lambda a: F.kl_div(a.log_softmax(1), a.T.softmax(1), reduction="batchmean"), SQUARE),
    "nll_loss": (lambda a, n: F.nll_loss(a.log_softmax(1), n), SQUARE, LABELS),
    "binary_cross_entropy": (lambda p: F.binary_cross_entropy(p, p.detach() / 2), PROBABLE),
    "binary_cross_entropy_with_logits": (
        lambda a, p: F.binary_cross_entropy_with_logits(a[:3], p),
        SQUARE,
        PROBABLE,
    ),
    "cross_entropy": (lambda a, n: F.cross_entropy(a, n, label_smoothing=0.1), SQUARE, LABELS),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:.*rounding_mode|.*align_corners")
def test_function(name):
    """The function of torch and its translation, outputs and gradients."""
    function, *inputs = CASES[name]
    # torch takes 1/6 in float32 in hardsigmoid's gradient, in float64 as well.
    agree(function, *inputs, gradients=name != "hardsigmoid")


def test_all_functions_have_a_case():
    """The table and the cases."""
    assert CASES.keys() == FUNCTIONS.keys()


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (
            lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
            "max_pool2d_with_indices|return_ind",
        ),
        (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", antialias=True), "antialias"),
        (lambda x: F.normalize(x, p=1), "normalize of order 1"),
        (lambda x: F.one_hot(x[0, 0].long().abs()), "one_hot without num_classes"),
        (lambda x: F.unfold(x, 2), "unfold has no translation|im2col has no translation"),
    ],
)
def test_refused(function, reason):
    """What has no exact translation is named with its line."""
    with pytest.raises(TranslationError, match=reason) as refused:
        translate(Applied(function), [IMAGE])
    assert refused.value.problems[0].file == __file__
