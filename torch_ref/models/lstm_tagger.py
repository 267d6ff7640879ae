"""LSTM that gives every word of a sentence a tag (PyTorch's tutorial; Graves et al. 2012).

Axes: b batch, t words, k tags.
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own custom)
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from flaxnets.specs.lstm_tagger import LSTMTaggerSpec


class LSTMTagger(nn.Module):
    """Word embeddings, an LSTM from left to right, a dense layer on every step.

    >>> LSTMTagger(LSTMTaggerSpec())(torch.tensor([5, 3, 8])).shape
    torch.Size([3, 17])
    """

    def __init__(self, spec: LSTMTaggerSpec) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(spec.vocab_size, spec.embedding_dim)
        self.lstm = nn.LSTM(spec.embedding_dim, spec.hidden_dim, batch_first=True)
        self.hidden2tag = nn.Linear(spec.hidden_dim, spec.tagset_size)

    def forward(self, sentence: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """One sentence (t,), or (b, t) with (b,) where they end -> log-probabilities (..., k)."""
        embeds = self.word_embeddings(sentence)
        if lengths is None:
            lstm_out, _ = self.lstm(embeds)
        else:
            packed = pack_padded_sequence(
                embeds, lengths.long().cpu(), batch_first=True, enforce_sorted=False
            )
            lstm_out, _ = self.lstm(packed)
            lstm_out, _ = pad_packed_sequence(
                lstm_out, batch_first=True, total_length=sentence.size(1)
            )
        return F.log_softmax(self.hidden2tag(lstm_out), dim=-1)
