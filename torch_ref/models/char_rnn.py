"""Character network that names a word's class, one linear hidden state (PyTorch's tutorial).

Axes: b batch, t characters, f one-hot characters, h hidden, k classes.
"""

import torch
from torch import nn

from flaxnets.specs.char_rnn import CharRNNSpec


class CharRNN(nn.Module):
    """Two dense layers on character and hidden state: the next state, and the class.

    >>> CharRNN(CharRNNSpec())(torch.ones(2, 4, 57)).shape
    torch.Size([2, 10])
    """

    def __init__(self, spec: CharRNNSpec) -> None:
        super().__init__()
        self.hidden_size = spec.hidden_size
        width = spec.input_size + spec.hidden_size
        self.hid_fc = nn.Linear(width, spec.hidden_size)
        self.out_fc = nn.Linear(width, spec.n_classes)
        self.softmax = nn.LogSoftmax(dim=-1)

    def step(self, inputs: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One character (b, f) and a state (b, h) -> log-probabilities (b, k), next state."""
        combined = torch.cat([inputs, hidden], dim=1)
        return self.softmax(self.out_fc(combined)), self.hid_fc(combined)

    def forward(self, words: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """(b, t, f), and (b,) where words end before t -> log-probabilities (b, k)."""
        hidden = words.new_zeros(len(words), self.hidden_size)
        outputs = []
        for inputs in words.unbind(1):
            output, hidden = self.step(inputs, hidden)
            outputs.append(output)
        last = words.size(1) if lengths is None else lengths.long()
        return torch.stack(outputs, 1)[torch.arange(len(words)), last - 1]
