"""Recurrent network over a sequence: Elman 1990; Hochreiter, Schmidhuber 1997; Cho et al. 2014.

Axes: b batch, t time, f features, o outputs.
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from flaxnets.specs.rnn import RNNSpec

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RNN(nn.Module):
    """Stacked recurrent layers and a dense layer on the last output, or on every one.

    >>> RNN(RNNSpec())(torch.ones(8, 20, 10)).shape
    torch.Size([8, 5])
    """

    def __init__(self, spec: RNNSpec) -> None:
        super().__init__()
        self.output = spec.output
        self.rnn = CELLS[spec.cell](
            spec.input_size,
            spec.hidden_size,
            spec.num_layers,
            batch_first=True,
            dropout=spec.dropout,
            bidirectional=spec.bidirectional,
        )
        self.fc = nn.Linear(spec.hidden_size * (1 + spec.bidirectional), spec.output_size)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """(b, t, f), and (b,) where sequences end before t -> (b, o), or (b, t, o)."""
        if lengths is None:
            out, _ = self.rnn(x)
            last = out[:, -1]
        else:
            packed = pack_padded_sequence(
                x, lengths.long().cpu(), batch_first=True, enforce_sorted=False
            )
            out, _ = self.rnn(packed)
            out, _ = pad_packed_sequence(out, batch_first=True, total_length=x.size(1))
            last = out[torch.arange(len(x)), lengths.long() - 1]
        return self.fc(out if self.output == "sequence" else last)
