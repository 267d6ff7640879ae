"""Sequences of tokens from a network that scores the next one: greedy and beam search.

A network gives itself as `step(tokens, position, state, memory) -> scores, state`: the last
tokens (b,), how many came before them, a tensor that it carries from token to token and a tuple
of those that stay, all with the batch first. Axes: b batch, n hypotheses, t time, k vocabulary.
"""

from collections.abc import Callable, Sequence

import torch

Step = Callable[
    [torch.Tensor, int, torch.Tensor, Sequence[torch.Tensor]], tuple[torch.Tensor, torch.Tensor]
]


def greedy(
    step: Step,
    state: torch.Tensor,
    memory: Sequence[torch.Tensor],
    first: torch.Tensor,
    max_length: int,
    *,
    end: int,
    padding: int,
) -> torch.Tensor:
    """The token of the highest score, again and again until all rows have ended.

    Arguments are those of `flaxnets.layers.decoding.greedy`.

    >>> step = lambda tokens, position, state, memory: (torch.eye(5).roll(1, 1)[tokens], state)
    >>> first = torch.tensor([1, 3])
    >>> greedy(step, first, (), first, 5, end=4, padding=0).tolist()
    [[2, 3, 4, 0, 0], [4, 0, 0, 0, 0]]
    """
    _check(max_length=max_length)
    tokens = first.new_full((len(first), max_length), padding)
    last, ended = first, torch.zeros(len(first), dtype=torch.bool)
    for position in range(max_length):
        scores, state = step(last, position, state, memory)
        scores[:, padding] = -torch.inf
        last = scores.argmax(-1).to(first.dtype).masked_fill(ended, padding)
        tokens[:, position] = last
        ended = ended | (last == end)
        if ended.all():
            break
    return tokens


def beam(
    step: Step,
    state: torch.Tensor,
    memory: Sequence[torch.Tensor],
    first: torch.Tensor,
    max_length: int,
    *,
    end: int,
    padding: int,
    beam_size: int = 4,
    length_penalty: float = 0.6,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best of the hypotheses that are kept at each length, (b, t), and its score (b,).

    Arguments and scores are those of `flaxnets.layers.decoding.beam` (Wu et al. 2016, arXiv
    1609.08144, section 7).

    >>> step = lambda tokens, position, state, memory: (torch.eye(5).roll(1, 1)[tokens], state)
    >>> first = torch.tensor([1, 3])
    >>> tokens, scores = beam(step, first, (), first, 5, end=4, padding=0)
    >>> tokens.shape, scores.shape
    (torch.Size([2, 5]), torch.Size([2]))
    """
    _check(max_length=max_length, beam_size=beam_size)
    batch, n = len(first), beam_size
    first, state = first.repeat_interleave(n, 0), state.repeat_interleave(n, 0)
    memory = [part.repeat_interleave(n, 0) for part in memory]
    tokens = first.new_full((batch, n, max_length), padding)
    ended = torch.zeros(batch, n, dtype=torch.bool)
    lengths = torch.zeros(batch, n, dtype=torch.long)
    last = first
    for position in range(max_length):
        scores, state = step(last, position, state, memory)
        scores[:, padding] = -torch.inf
        logs = scores.log_softmax(-1).reshape(batch, n, -1)
        logs = logs.masked_fill(ended[..., None], -torch.inf)
        logs[..., padding] = logs[..., padding].masked_fill(ended, 0)
        if position == 0:  # all hypotheses begin alike: one of them is enough
            sums = torch.full((batch, n), -torch.inf, dtype=logs.dtype)
            sums[:, 0] = 0
        sums = sums[..., None] + logs
        lengths = lengths + ~ended
        ranks = sums / _penalty(lengths, length_penalty, sums.dtype)[..., None]
        chosen = ranks.flatten(1).topk(n).indices
        parent, last = chosen // logs.size(-1), (chosen % logs.size(-1)).to(first.dtype)

        rows = torch.arange(batch)[:, None]
        tokens = tokens[rows, parent]
        tokens[..., position] = last
        sums = sums.flatten(1).gather(1, chosen)
        ended = ended[rows, parent] | (last == end)
        lengths = lengths[rows, parent]
        state = state[(rows * n + parent).flatten()]
        last = last.flatten()
        if (ended | sums.isinf()).all():
            break
    return tokens[:, 0], (sums / _penalty(lengths, length_penalty, sums.dtype))[:, 0]


def _penalty(lengths: torch.Tensor, length_penalty: float, dtype: torch.dtype) -> torch.Tensor:
    return ((5 + lengths.to(dtype)) / 6) ** length_penalty


def _check(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} {size} is too small; use 1 or more")
