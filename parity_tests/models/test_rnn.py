"""RNN: the seed's class, torch.nn's LSTM and GRU, both ends of the output, and its options."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import flaxnets
from flaxnets import bridge, parity, specs


class SeedRNN(torch.nn.Module):
    """As in the seed; `cell` may be torch.nn's LSTM or GRU."""

    def __init__(self, input_size, hidden_size, num_layers, output_size, cell=torch.nn.RNN):
        super().__init__()
        self.rnn = cell(input_size, hidden_size, num_layers, batch_first=True)
        self.fc = torch.nn.Linear(hidden_size, output_size)

    def forward(self, x):
        """(b, t, f) -> (b, o)."""
        out, _ = self.rnn(x)
        return self.fc(out[:, -1, :])


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_seed_class(cell):
    """The seed's weights load strictly into both twins and give its outputs."""
    torch.manual_seed(0)
    seed = SeedRNN(10, 32, 2, 5, getattr(torch.nn, cell.upper()))
    flax = flaxnets.create("rnn", cell=cell)
    twin = flaxnets.create("rnn", "torch", cell=cell)
    bridge.load_state_dict(flax, seed.state_dict())
    twin.load_state_dict(seed.state_dict())
    x = torch.randn(8, 20, 10)
    wanted = seed(x).detach()
    np.testing.assert_array_equal(twin(x).detach(), wanted)
    np.testing.assert_allclose(flax(jnp.asarray(x.numpy())), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("output", ["last", "sequence"])
def test_options(cell, output):
    """Cells and outputs that no named variant has, both directions, agree as the others do."""
    checks = ["forward", "forward_train", "gradients"]
    options = {"cell": cell, "output": output}
    parity.check_architecture("rnn", "tiny", checks, **options).raise_if_failed()


def test_shorter_sequences():
    """A sequence that ends early gives what it gives alone."""
    flax = flaxnets.create("rnn", variant="tiny", dropout=0.0)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 3)), jnp.float32)
    both = flax(x, jnp.array([6, 4]))
    np.testing.assert_allclose(both[1], flax(x[1:, :4])[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dropout": 1.0}, "dropout 1.0 is out of range; use 0 to below 1"),
        ({"dropout": 0.5, "num_layers": 1}, "goes between layers and num_layers is 1"),
        ({"cell": "GRU"}, "cell 'GRU' is not one of 'rnn', 'lstm', 'gru'"),
        ({"hidden_size": 0}, "hidden_size 0 is too small"),
    ],
)
def test_wrong(fields, message):
    """Each mistake is named."""
    with pytest.raises(specs.SpecError, match=message):
        flaxnets.spec("rnn", **fields)
