"""Sequences of tokens from a network that scores the next one: greedy and beam search.

A network gives itself as `step(tokens, position, state, memory) -> scores, state`: the last
tokens (b,), how many came before them, what it carries from token to token and what stays, both
trees of arrays whose rows are the batch. Nothing has a shape that depends on values, so that all
of it works inside `jax.jit`. Axes: b batch, n hypotheses, t time, k vocabulary.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int

from flaxnets.layers.shape import lifted

Step = Callable[[Array, Array, Any, Any], tuple[Array, Any]]


def greedy(
    step: Step,
    state: Any,
    memory: Any,
    first: Int[Array, " b"],
    max_length: int,
    *,
    end: int,
    padding: int,
) -> Int[Array, "b t"]:
    """The token of the highest score, again and again until all rows have ended.

    Args:
        step: of the network; see above.
        state: what it starts from.
        memory: what stays.
        first: the token in front of each row, which is not returned.
        max_length: t, tokens of the longest result, `end` included.
        end: what a row ends with.
        padding: what follows; its score is ignored.

    Raises:
        ValueError: a `max_length` below 1.

    >>> step = lambda tokens, position, state, memory: (jnp.roll(jnp.eye(5), 1, 1)[tokens], state)
    >>> greedy(step, None, None, jnp.array([1, 3]), 5, end=4, padding=0).tolist()
    [[2, 3, 4, 0, 0], [4, 0, 0, 0, 0]]
    """
    _check(max_length=max_length)

    def more(carry):
        position, _, _, ended, _ = carry
        return (position < max_length) & ~ended.all()

    def body(carry):
        position, tokens, last, ended, state = carry
        scores, state = step(last, position, state, memory)
        best = scores.at[:, padding].set(-jnp.inf).argmax(-1).astype(first.dtype)
        last = jnp.where(ended, padding, best)
        tokens = tokens.at[:, position].set(last)
        return position + 1, tokens, last, ended | (last == end), state

    tokens = jnp.full((len(first), max_length), padding, first.dtype)
    start = (0, tokens, first, jnp.zeros(len(first), bool), state)
    return jax.lax.while_loop(more, body, start)[1]


def beam(
    step: Step,
    state: Any,
    memory: Any,
    first: Int[Array, " b"],
    max_length: int,
    *,
    end: int,
    padding: int,
    beam_size: int = 4,
    length_penalty: float = 0.6,
) -> tuple[Int[Array, "b t"], Float[Array, " b"]]:
    """The best of the hypotheses that are kept at each length, and its score.

    The score is the logarithm of the probability over ((5 + length) / 6)^length_penalty; one that
    has ended keeps its place among the others, and one that is cut at `max_length` counts as it
    is. With one hypothesis this is `greedy`.

    Args:
        step: of the network; see above.
        state: what it starts from, a row an example.
        memory: what stays, a row an example.
        first: the token in front of each row, which is not returned.
        max_length: t, tokens of the longest result, `end` included.
        end: what a row ends with.
        padding: what follows; its probability is 0 before.
        beam_size: n, how many hypotheses are kept.
        length_penalty: 0 for the probability itself; more favours the longer.

    Raises:
        ValueError: a `max_length` or `beam_size` below 1.

    Source: Wu et al. 2016, arXiv 1609.08144, section 7, for the score.

    >>> step = lambda tokens, position, state, memory: (jnp.roll(jnp.eye(5), 1, 1)[tokens], state)
    >>> tokens, scores = beam(step, None, None, jnp.array([1, 3]), 5, end=4, padding=0)
    >>> tokens.shape, scores.shape
    ((2, 5), (2,))
    """
    _check(max_length=max_length, beam_size=beam_size)
    batch, n = len(first), beam_size

    def repeated(tree):
        return jax.tree.map(lambda x: jnp.repeat(x, n, axis=0), tree)

    first, state, memory = repeated(first), repeated(state), repeated(memory)
    scores = jax.eval_shape(step, first, jnp.zeros((), int), state, memory)[0]
    stays = jnp.where(jnp.arange(scores.shape[-1]) == padding, 0, -jnp.inf).astype(scores.dtype)
    stays = lifted(stays, 3)

    def score(sums, lengths):
        return sums / ((5 + lengths.astype(sums.dtype)) / 6) ** length_penalty

    def more(carry):
        position, _, _, sums, ended, _, _ = carry
        return (position < max_length) & (~ended & (sums > -jnp.inf)).any()

    def body(carry):
        position, tokens, last, sums, ended, lengths, state = carry
        scores, state = step(last.ravel(), position, state, memory)
        logs = jax.nn.log_softmax(scores.at[:, padding].set(-jnp.inf))
        logs = jnp.where(ended[..., None], stays, rearrange(logs, "(b n) k -> b n k", n=n))
        sums = sums[..., None] + logs
        lengths = lengths + (~ended).astype(lengths.dtype)
        ranks = rearrange(score(sums, lengths[..., None]), "b n k -> b (n k)")
        _, chosen = jax.lax.top_k(ranks, n)
        parent, last = chosen // logs.shape[-1], (chosen % logs.shape[-1]).astype(first.dtype)
        rows = (parent + n * jnp.arange(batch, dtype=parent.dtype)[:, None]).ravel()

        def kept(x):
            return jnp.take_along_axis(x, parent, axis=1)

        tokens = tokens.reshape(batch * n, -1)[rows].reshape(tokens.shape)
        tokens = tokens.at[..., position].set(last)
        sums = jnp.take_along_axis(sums.reshape(batch, -1), chosen, axis=1)
        ended = kept(ended) | (last == end)
        state = jax.tree.map(lambda x: x[rows], state)
        return position + 1, tokens, last, sums, ended, kept(lengths), state

    # All hypotheses begin alike, so that only the first of them has a probability.
    sums = jnp.full((batch, n), -jnp.inf, scores.dtype).at[:, 0].set(0)
    start = (
        0,
        jnp.full((batch, n, max_length), padding, first.dtype),
        first.reshape(batch, n),
        sums,
        jnp.zeros((batch, n), bool),
        jnp.zeros((batch, n), jnp.int32),
        state,
    )
    _, tokens, _, sums, _, lengths, _ = jax.lax.while_loop(more, body, start)
    return tokens[:, 0], score(sums, lengths)[:, 0]


def _check(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} {size} is too small; use 1 or more")
