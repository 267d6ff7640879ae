"""Rearranging, joining, cutting, picking and making: torch's function and its translation."""

import einops
import pytest
import torch
from einops import rearrange, reduce, repeat
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from flaxnets.swap.twin import TranslationError, translate
from flaxnets.swap.twin.rearrangements import REARRANGEMENTS
from parity_tests.swap.twin.agreement import Applied, agree

torch.manual_seed(0)
X = torch.randn(3, 4, 5, dtype=torch.float64)
Y = torch.randn(3, 4, 5, dtype=torch.float64)
IMAGE = torch.randn(2, 3, 4, 5, dtype=torch.float64)
SQUARE = torch.randn(4, 4, dtype=torch.float64)
PICKED = torch.tensor([[2, 0, 1, 1], [0, 0, 3, 2], [1, 2, 3, 0]])


def _set(x, y):
    x = x.clone()
    x[:, 0] = y[:, 1]
    x[..., 1:3] = 0
    x[0, 1, 2] = x.sum()
    return x


def _halves(x):
    first, second = x.split(2, dim=1)
    return first - second, x.split([1, 4], -1)[1], torch.split_with_sizes(x, [1, 3], 1)[0]


def _packed(x, n):
    packed = pack_padded_sequence(x, n[:, 0] + 2, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(packed, batch_first=True, total_length=x.size(1))[1]


CASES = {
    "size": (lambda x: x.reshape(x.size(0) * x.size(1), x.size(-1)) / x.shape[2], X),
    "view": (
        lambda x: (x.view(3, -1), x.view(-1), x.view((x.size(0), 2, 2, 5)), x.view(-1, 4, 5)),
        X,
    ),
    "reshape": (lambda x: torch.reshape(x, (5, 12)), X),
    "view_as": (lambda x, y: x.view_as(y.mT), X, Y),
    "reshape_as": (lambda x, y: x.reshape_as(y), X, Y),
    "flatten": (lambda x: (x.flatten(), x.flatten(1), torch.flatten(x, 0, 1)), X),
    "unflatten": (lambda x: x.unflatten(1, (2, 2)), X),
    "permute": (lambda x: (x.permute(2, 0, 1), torch.permute(x, (0, -1, 1))), X),
    "transpose": (lambda x: (x.transpose(1, 2), x.transpose(-1, 0)), X),
    "swapaxes": (lambda x: x.swapaxes(0, 1), X),
    "swapdims": (lambda x: torch.swapdims(x, 0, 2), X),
    "t": (lambda a: a.t() + a, SQUARE),
    "movedim": (lambda x: x.movedim(0, -1), X),
    "moveaxis": (lambda x: torch.moveaxis(x, (0, 1), (1, 2)), X),
    "unsqueeze": (
        lambda a: (a.unsqueeze(0), a.unsqueeze(1), a.unsqueeze(-1), a.unsqueeze(-2)),
        SQUARE,
    ),
    "squeeze": (
        lambda x: (x[:1].squeeze(0), x.squeeze(1), x[:, :1].squeeze(), x[..., :1].squeeze(-1)),
        X,
    ),
    "expand": (lambda a: (a.unsqueeze(1).expand(-1, 3, -1), a.expand(2, 4, 4)), SQUARE),
    "broadcast_to": (lambda a: torch.broadcast_to(a, (2, 4, 4)), SQUARE),
    "expand_as": (lambda x, a: a[0].unsqueeze(1).expand_as(x), X, SQUARE),
    "repeat": (
        lambda x: (x.repeat(2, 1, 3), x.repeat((2, 1, 1, 1)), repeat(x, "a b c -> a (b r) c", r=2)),
        X,
    ),
    "tile": (lambda x: torch.tile(x, (2, 1)), X),
    "repeat_interleave": (lambda x: (x.repeat_interleave(2, dim=1), x.repeat_interleave(3)), X),
    "rearrange": (lambda x: rearrange(x, "a (b c) d -> (a d) b c", b=2), X),
    "reduce": (
        lambda x: einops.reduce(x, "a b c -> b a", "mean") + reduce(x, "a b c -> b a", "max"),
        X,
    ),
    "cat": (lambda x, y: (torch.cat([x, y]), torch.cat((x, y[:, :2]), dim=1)), X, Y),
    "concat": (lambda x, y: torch.concat([x, y], dim=-1), X, Y),
    "concatenate": (lambda x, y: torch.concatenate([x, y], axis=2), X, Y),
    "stack": (lambda x, y: (torch.stack([x, y]), torch.stack([x, y], -1)), X, Y),
    "chunk": (lambda x: (*x.chunk(2, 1), *torch.chunk(x, 3, dim=-1)), X),
    "split": (_halves, X),
    "split_with_sizes": (_halves, X),
    "unbind": (lambda x: x.unbind(1)[2] + sum(x.unbind(1)) + sum(row for row in x.mT[0].T), X),
    "select": (lambda x: x.select(1, 2), X),
    "narrow": (lambda x: (x.narrow(1, 1, 2), x.narrow(2, 0, x.size(0))), X),
    "getitem": (
        lambda x, n: (
            *(x[0], x[:, -1], x[..., 1:3], x[:, None], x[1:, :2, ::2], x[n[0] % 3], x[0, :, n[1]]),
            *(x[torch.arange(3), n[:, 0]], x[:, : x.size(0)], x[[0, 2]], x[:, 1 : x.size(1) - 1]),
        ),
        X,
        PICKED,
    ),
    "setitem": (_set, X, Y),
    "index_select": (lambda x, n: x.index_select(1, n[0]), X, PICKED),
    "gather": (lambda x, n: x[..., 0].gather(1, n), X, PICKED),
    "roll": (lambda x: (x.roll(2, 1), torch.roll(x, (1, -1), (0, 2)), x.roll(3)), X),
    "flip": (lambda x: (x.flip(0), torch.flip(x, (1, -1))), X),
    "tril": (lambda a: a.tril() + torch.tril(a, -1), SQUARE),
    "triu": (lambda a: torch.triu(a, diagonal=1), SQUARE),
    "zeros": (lambda x: x + torch.zeros(3, x.size(1), 1) + torch.zeros((4, 5), dtype=x.dtype), X),
    "empty": (lambda x: torch.empty(x.size(0), 2).fill_(3), X),
    "ones": (lambda x: torch.ones(x.size(0), 4, 5) * x + torch.ones(5), X),
    "full": (lambda x: torch.full((x.size(0), 2), 2.5) + torch.full((2,), 3, dtype=x.dtype), X),
    "arange": (
        lambda x: (torch.arange(x.size(1)) + torch.arange(1, 9, 2), torch.arange(0, 1, 0.25)),
        X,
    ),
    "linspace": (lambda x: torch.linspace(0, 1, x.size(1)), X),
    "eye": (lambda x: (torch.eye(x.size(0)), torch.eye(3, 4)), X),
    "tensor": (lambda x: x * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]) + torch.tensor(2), X),
    "zeros_like": (lambda x: torch.zeros_like(x) + x, X),
    "empty_like": (lambda x: torch.empty_like(x).zero_() + x, X),
    "zero": (lambda x: x.clone().zero_() + x, X),
    "ones_like": (lambda x: (torch.ones_like(x), torch.ones_like(x, dtype=torch.bool)), X),
    "full_like": (lambda x: torch.full_like(x, 0.3) * x, X),
    "fill": (lambda x: x.clone().fill_(2.0) * x, X),
    "new_zeros": (lambda x: x + x.new_zeros(len(x), 4, 1), X),
    "new_empty": (lambda x: x.new_empty(2, 3).zero_(), X),
    "new_ones": (lambda x: x.new_ones((2, x.size(0))), X),
    "new_full": (lambda x: x.new_full((2, 3), 7), X),
    "pack_padded_sequence": (_packed, X, PICKED.clamp(0, 2)),
    "pad_packed_sequence": (_packed, X, PICKED.clamp(0, 2)),
}
DRAWN = {
    "randn": lambda x: x + torch.randn(x.size(0), 4, 5),
    "rand": lambda x: x + torch.rand(x.size()),
    "randn_like": lambda x: x + torch.randn_like(x),
    "rand_like": lambda x: x + torch.rand_like(x),
    "bernoulli": lambda x: torch.bernoulli(x.sigmoid()) * x,
}
ON_IMAGES = {
    "cat and split": lambda x: (torch.cat([x, 2 * x], 1), x.split([1, 2], 1)[1], *x.chunk(2, 3)),
    "slices": lambda x: (x[:, 1:], x[..., 1:3, ::2], x[:, 0], x[:, :, 1, 2], x[0], x[:, None]),
    "views": lambda x: (x.view(x.size(0), -1), x.flatten(1), x.flatten(2), x.reshape(2, 3, 20)),
    "orders": lambda x: (
        x.permute(0, 2, 3, 1) @ x.permute(0, 3, 1, 2).mT[0, 0].mT,
        x.transpose(1, 3),
    ),
    "patterns": lambda x: (
        rearrange(x, "b c h w -> b (h w) c"),
        rearrange(x, "b c (h r) w -> b (c r) h w", r=2),
        reduce(x, "b c h w -> b c", "mean"),
    ),
    "flips": lambda x: (x.flip(1) + x.flip((2, 3)), x.roll(1, 1), torch.zeros_like(x) + x),
}


@pytest.mark.parametrize("name", CASES)
def test_rearrangement(name):
    """The function of torch and its translation, outputs and gradients."""
    function, *inputs = CASES[name]
    agree(function, *inputs)


@pytest.mark.parametrize("name", ON_IMAGES)
def test_on_images(name):
    """The same on what is held with channels last."""
    agree(ON_IMAGES[name], IMAGE)


def test_all_rearrangements_have_a_case():
    """The table and the cases; what draws is compared in test_model.py."""
    assert CASES.keys() | DRAWN.keys() == REARRANGEMENTS.keys()


@pytest.mark.parametrize("name", DRAWN)
def test_draws(name):
    """What draws takes `rngs`, in a shape that follows its argument's."""
    source = translate(Applied(DRAWN[name]), [X]).source
    assert "rngs()" in source
    assert "shape" in source or name == "bernoulli"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x, n: x[x > 0], "mask gives a shape"),
        (lambda x, n: x[None, 0, :, n[0]], "numbers, arrays and None"),
        (lambda x, n: x.view(torch.int64), "bits as another dtype"),
        (lambda x, n: x[..., 0].gather(1, n[:2, :2]), "gather by an index"),
        (lambda x, n: x.repeat_interleave(n[0], 1), "repeat_interleave by a tensor"),
    ],
)
def test_refused(function, reason):
    """What has no exact translation is named with its line."""
    with pytest.raises(TranslationError, match=reason) as refused:
        translate(Applied(function), [X, PICKED])
    assert refused.value.problems[0].file == __file__
