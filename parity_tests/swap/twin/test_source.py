"""The text of a twin: imports that it needs and no others, and loops over lists."""

import ast

import torch
from torch import nn

from flaxnets.swap.twin import translate
from flaxnets.swap.twin.source import rolled


class RNN(nn.Module):
    """A class with the name of a layer that it holds."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(3, 4)
        self.register_buffer("count", torch.tensor(0))

    def forward(self, x):
        return self.rnn(x)[0] + self.count


def test_names():
    """A class and a layer of one name; a counter of 64 bits and its rule."""
    source = translate(RNN(), [torch.randn(2, 3, 3)]).source
    assert "self.rnn = layers.RNN(3, 4, rngs=rngs)" in source
    assert "from flaxnets import bridge, layers" in source
    assert 'bridge.register(RNN, bridge.Leaf("count", "count", torch_dtype="int64"))' in source


def test_imports():
    """What is imported, and what the text uses."""
    source = translate(RNN(), [torch.randn(2, 3, 3)]).source
    tree = ast.parse(source)
    names = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert names <= used


def test_rolled():
    """Statements for every entry of a list in turn and the loop over it; others stay."""
    four = [
        line
        for index in range(2)
        for line in (f"y = self.blocks[{index}](x)", f"x = x + self.blocks[{index}].scale * y")
    ]
    loop = [
        "for block in self.blocks:",
        "    y = block(x)",
        "    x = x + block.scale * y",
        "return x",
    ]
    assert rolled([*four, "return x"], {"blocks": 2}, 0) == loop
    assert rolled(four, {"blocks": 3}, 0) == four
    swapped = [four[2], four[3], four[0], four[1]]
    assert rolled(swapped, {"blocks": 2}, 0) == swapped
    taken = ["block = self.blocks[0](block)", "block = self.blocks[1](block)"]
    assert rolled(taken, {"blocks": 2}, 0) == [
        "for each_block in self.blocks:",
        "    block = each_block(block)",
    ]
