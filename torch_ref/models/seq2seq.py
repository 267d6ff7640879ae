"""GRU encoder and decoder with additive attention: Bahdanau et al. (2014), arXiv 1409.0473.

Names are those of PyTorch's tutorial. Axes: b batch, s source, t target, e embedding, h hidden,
a annotation (h times directions), l layers, k target vocabulary.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from flaxnets.specs import END, PAD, START
from flaxnets.specs.seq2seq import Seq2SeqSpec
from torch_ref.layers import decoding

Memory = Sequence[torch.Tensor]  # annotations (b, s, a), keys (b, s, h), where there are any (b, s)


class Encoder(nn.Module):
    """A GRU over embeddings, up to the end of each source."""

    def __init__(self, spec: Seq2SeqSpec) -> None:
        super().__init__()
        self.embedding = nn.Embedding(spec.source_vocab_size, spec.embedding_dim)
        self.dropout = nn.Dropout(spec.dropout)
        self.gru = nn.GRU(
            spec.embedding_dim,
            spec.hidden_size,
            spec.num_layers,
            batch_first=True,
            bidirectional=spec.bidirectional,
        )
        both = 2 * spec.hidden_size
        self.fc = nn.Linear(both, spec.hidden_size) if spec.bidirectional else None

    def forward(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, s) -> annotations (b, s, a), states that the decoder starts from (l, b, h)."""
        embedded = self.dropout(self.embedding(source))
        lengths = (source != PAD).sum(-1).cpu()
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        packed, hidden = self.gru(packed)
        annotations, _ = pad_packed_sequence(packed, batch_first=True, total_length=source.size(1))
        if self.fc is not None:
            both = rearrange(hidden, "(l directions) b h -> l b (directions h)", directions=2)
            hidden = torch.tanh(self.fc(both))
        return annotations, hidden


class BahdanauAttention(nn.Module):
    """Softmax of v tanh(W state + U annotation), which weighs the annotations.

    The tutorial's bias of v is left out: it moves all scores alike, which softmax does not see.
    """

    def __init__(self, annotation_size: int, hidden_size: int) -> None:
        super().__init__()
        self.Wa = nn.Linear(hidden_size, hidden_size)
        self.Ua = nn.Linear(annotation_size, hidden_size)
        self.Va = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, query: torch.Tensor, memory: Memory) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, h) -> the weighted sum (b, a) and the weights (b, s)."""
        annotations, keys, present = memory
        scores = self.Va(torch.tanh(self.Wa(query).unsqueeze(1) + keys)).squeeze(-1)
        weights = scores.masked_fill(~present, -torch.inf).softmax(-1)
        return torch.bmm(weights.unsqueeze(1), annotations).squeeze(1), weights


class Decoder(nn.Module):
    """A GRU over embeddings, each beside what attention finds for it."""

    def __init__(self, spec: Seq2SeqSpec) -> None:
        super().__init__()
        annotation_size = spec.hidden_size * (2 if spec.bidirectional else 1)
        self.embedding = nn.Embedding(spec.target_vocab_size, spec.embedding_dim)
        self.dropout = nn.Dropout(spec.dropout)
        self.attention = BahdanauAttention(annotation_size, spec.hidden_size)
        self.gru = nn.GRU(
            spec.embedding_dim + annotation_size,
            spec.hidden_size,
            spec.num_layers,
            batch_first=True,
        )
        self.out = nn.Linear(spec.hidden_size, spec.target_vocab_size)

    def step(
        self, embedded: torch.Tensor, hidden: torch.Tensor, memory: Memory
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One token (b, e) and the states (l, b, h) -> output (b, h), next states."""
        context, _ = self.attention(hidden[-1], memory)
        inputs = torch.cat([embedded, context], dim=-1)
        output, hidden = self.gru(inputs.unsqueeze(1), hidden)
        return output.squeeze(1), hidden

    def forward(self, target: torch.Tensor, hidden: torch.Tensor, memory: Memory) -> torch.Tensor:
        """(b, t) -> (b, t, k)."""
        embedded = self.dropout(self.embedding(target))
        outputs = []
        for i in range(target.size(1)):
            output, hidden = self.step(embedded[:, i], hidden, memory)
            outputs.append(output)
        return self.out(torch.stack(outputs, dim=1))


class Seq2Seq(nn.Module):
    """Source tokens and target tokens to logits of the token behind each of the latter.

    A source ends at its first PAD. In training the right targets are given (teacher forcing);
    without them `greedy` and `beam` write their own, in evaluation mode.

    >>> model = Seq2Seq(Seq2SeqSpec())
    >>> source = torch.tensor([[5, 6, 7], [8, 9, PAD]])
    >>> model(source, torch.tensor([[START, 5], [START, 6]])).shape, model.greedy(source).shape
    (torch.Size([2, 2, 20]), torch.Size([2, 12]))
    """

    def __init__(self, spec: Seq2SeqSpec) -> None:
        super().__init__()
        self.encoder = Encoder(spec)
        self.decoder = Decoder(spec)
        self.max_length = spec.max_length

    def encode(self, source: torch.Tensor) -> tuple[torch.Tensor, Memory]:
        """What the decoder starts from (l, b, h) and what it looks at."""
        annotations, hidden = self.encoder(source)
        return hidden, (annotations, self.decoder.attention.Ua(annotations), source != PAD)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(b, s), (b, t) -> (b, t, k)."""
        return self.decoder(target, *self.encode(source))

    def step(
        self, tokens: torch.Tensor, position: int, hidden: torch.Tensor, memory: Memory
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The last tokens (b,), states (b, l, h) -> logits (b, k), next states."""
        states = hidden.transpose(0, 1).contiguous()
        output, states = self.decoder.step(self.decoder.embedding(tokens), states, memory)
        return self.decoder.out(output), states.transpose(0, 1)

    @torch.no_grad()
    def greedy(self, source: torch.Tensor, max_length: int | None = None) -> torch.Tensor:
        """The likeliest token, again and again: tokens (b, max_length), PAD behind END."""
        return decoding.greedy(self.step, *self._start(source, max_length), end=END, padding=PAD)

    @torch.no_grad()
    def beam(
        self,
        source: torch.Tensor,
        beam_size: int = 4,
        max_length: int | None = None,
        length_penalty: float = 0.6,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The best of several hypotheses (b, max_length), and its score (b,)."""
        return decoding.beam(
            self.step,
            *self._start(source, max_length),
            end=END,
            padding=PAD,
            beam_size=beam_size,
            length_penalty=length_penalty,
        )

    def _start(
        self, source: torch.Tensor, max_length: int | None
    ) -> tuple[torch.Tensor, Memory, torch.Tensor, int]:
        hidden, memory = self.encode(source)
        first = source.new_full((len(source),), START)
        length = self.max_length if max_length is None else max_length
        return hidden.transpose(0, 1), memory, first, length
