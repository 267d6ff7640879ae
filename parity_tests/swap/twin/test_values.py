"""Proxies: what Python sees of them, and of the tensors that they stand for."""

import pytest
import torch
from torch import fx, nn

from flaxnets.swap.twin.trace import Tracer
from flaxnets.swap.twin.values import Dtype, Size, Value

X = torch.arange(12.0).reshape(3, 4)


def _seen(look):
    """What a look at the proxy of X gives, and the graph."""
    found = []

    class Looked(nn.Module):
        def forward(self, x):
            found.append(look(x))
            return x

    graph = Tracer(None, lambda module: True).run(Looked(), (X,), {})
    return found[0], graph


@pytest.mark.parametrize(
    "look",
    [
        lambda x: tuple(x.shape),
        lambda x: x.size(-1) * 2 + 1,
        lambda x: 7 // x.size(0) - x.size(1) % 3,
        lambda x: x.dim() + x.ndim,
        lambda x: x.numel(),
        lambda x: x.is_floating_point(),
        lambda x: len(list(x)),
        lambda x: len(x),
        lambda x: x.shape[1] / 2,
        lambda x: x.dtype == torch.float32,
        lambda x: x.dtype.is_floating_point,
        lambda x: x.device,
        lambda x: x.shape == (3, 4),
        lambda x: list(range(x.size(0))),
    ],
)
def test_python_sees(look):
    """The proxy and the tensor, as Python asks them."""
    assert _seen(look)[0] == look(X)


def test_kinds():
    """What stays symbolic: tensors, sizes and dtypes, with nodes of their own."""
    for look, kind in (
        (lambda x: x.T, Value),
        (lambda x: x.max(1).values, Value),
        (lambda x: x.size(0) + 1, Size),
        (lambda x: 2 * x.shape[1], Size),
        (lambda x: x.dtype, Dtype),
    ):
        found, graph = _seen(look)
        assert type(found) is kind
        assert isinstance(found.node, fx.Node)
        assert found.node in graph.nodes
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _seen(lambda x: x.absent)
