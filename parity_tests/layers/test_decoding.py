"""Greedy and beam search: twins, every sequence by enumeration, and all networks that translate."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flaxnets
from flaxnets.layers import decoding
from flaxnets.parity.pair import Pair
from flaxnets.specs import END, PAD, START
from torch_ref.layers import decoding as torch_decoding

B, K, D, LENGTH = 9, 5, 3, 4
RNG = np.random.default_rng(42)
TABLES = [RNG.standard_normal(shape) for shape in ((K, D), (D, D), (D, K), (LENGTH, K))]
STATE, MEMORY = RNG.standard_normal((B, D)), RNG.standard_normal((B, K))


def step_of(xp):
    """A network whose scores depend on the last token, all before it, the place and the row."""
    embedding, carry, out, places = (xp.asarray(table) for table in TABLES)

    def step(tokens, position, state, memory):
        state = xp.tanh(embedding[tokens] + 2 * state @ carry)
        return 3 * state @ out + places[position][None] + memory[0], state

    return step


def flax(search, **options):
    """A search on the JAX side, jitted, in float64."""
    with jax.enable_x64(True):
        first = jnp.full(B, START)

        def run(state, memory):
            return search(
                step_of(jnp), state, (memory,), first, LENGTH, end=END, padding=PAD, **options
            )

        return jax.tree.map(np.asarray, jax.jit(run)(jnp.asarray(STATE), jnp.asarray(MEMORY)))


def theirs(search, **options):
    """The same on the torch side."""
    state, memory = torch.tensor(STATE), (torch.tensor(MEMORY),)
    first = torch.full((B,), START)
    return search(step_of(torch), state, memory, first, LENGTH, end=END, padding=PAD, **options)


def enumerated(length_penalty):
    """The best of all sequences of every row, and its score."""
    best = [(-math.inf, ())] * B
    step, others = step_of(np), [token for token in range(K) if token != PAD]
    for length in range(1, LENGTH + 1):
        for tokens in itertools.product(others, repeat=length):
            if END in tokens[:-1] or (length < LENGTH and tokens[-1] != END):
                continue
            last, state, total = np.full(B, START), STATE, np.zeros(B)
            for position, token in enumerate(tokens):
                scores, state = step(last, position, state, (MEMORY,))
                scores[:, PAD] = -np.inf
                total += scores[:, token] - np.log(np.exp(scores).sum(-1))
                last = np.full(B, token)
            score = total / ((5 + length) / 6) ** length_penalty
            padded = tokens + (PAD,) * (LENGTH - length)
            best = [max(old, (new, padded)) for old, new in zip(best, score.tolist(), strict=True)]
    return np.array([tokens for _, tokens in best]), np.array([score for score, _ in best])


@pytest.mark.parametrize("length_penalty", [0.0, 3.0])
def test_enumeration(length_penalty):
    """A beam that holds everything finds the best of all sequences, in both frameworks."""
    options = {"beam_size": (K - 1) ** LENGTH, "length_penalty": length_penalty}
    tokens, scores = enumerated(length_penalty)
    for found, score in (flax(decoding.beam, **options), theirs(torch_decoding.beam, **options)):
        np.testing.assert_array_equal(found, tokens)
        np.testing.assert_allclose(score, scores, rtol=1e-10)


def test_penalty_matters():
    """The rows of the test above are longer where length is favoured."""
    lengths = [(enumerated(penalty)[0] != PAD).sum() for penalty in (0.0, 3.0)]
    assert lengths[0] < lengths[1]


def test_narrow_beam():
    """Both frameworks drop the same hypotheses; one alone is the greedy search."""
    greedy = flax(decoding.greedy)
    np.testing.assert_array_equal(theirs(torch_decoding.greedy), greedy)
    best = enumerated(0.6)[1]
    for beam_size in (1, 2):
        tokens, scores = flax(decoding.beam, beam_size=beam_size)
        found = theirs(torch_decoding.beam, beam_size=beam_size)
        np.testing.assert_array_equal(found[0], tokens)
        np.testing.assert_allclose(found[1], scores, rtol=1e-10)
        assert (scores <= best + 1e-12).all()
        assert beam_size == 2 or (tokens == greedy).all()
        assert beam_size == 1 or (tokens != greedy).any()
    for row in greedy.tolist():  # nothing but padding behind the end
        assert END not in row or not any(row[row.index(END) + 1 :])


# Seeds of random weights, and what is added to the score of END, so that some rows end.
DRAWS = {"seq2seq": (2, 0.6), "seq2seq_transformer": (6, 0.3)}


class Translators:
    """Both twins of a network with the same random weights, in float64, and some sources."""

    def __init__(self, name):
        spec = flaxnets.spec(name, "tiny")
        seed, more = DRAWS[name]
        born = nnx.jit(lambda: flaxnets.build(spec))()
        pair = Pair(born, flaxnets.build(spec, "torch"), spec.inputs(7), seed)
        bias = next(key for key in ("decoder.out.bias", "generator.bias") if key in pair.weights)
        pair.weights[bias][END] += np.float32(more)
        self.flax, self.torch = pair.flax_model(), pair.torch_model()
        self.call = jax.jit(self.flax.__call__)
        self.source, self.target = pair.flax_inputs()
        self.torch_source = pair.torch_inputs()[0]
        self.length = spec.max_length


@pytest.fixture(scope="module", params=DRAWS)
def translators(request):
    """The twins of every network that translates."""
    with jax.enable_x64(True):
        yield Translators(request.param)


def test_all_networks():
    """No network that translates is left out below."""
    assert DRAWS.keys() == {
        name for name in flaxnets.names() if flaxnets.spec(name).task == "translation"
    }


def test_greedy_networks(translators):
    """Both twins write the same, and what the call with the whole target finds likeliest."""
    tokens = np.asarray(jax.jit(translators.flax.greedy)(translators.source))
    assert tokens.dtype == np.int32
    np.testing.assert_array_equal(translators.torch.greedy(translators.torch_source), tokens)
    ends = (tokens == END).any(1)
    assert ends.any()
    assert not ends.all()
    target = jnp.concatenate([jnp.full((7, 1), START), tokens[:, :-1]], axis=1).astype(jnp.int32)
    logits = translators.call(translators.source, target)
    likeliest = logits.at[..., PAD].set(-jnp.inf).argmax(-1)
    np.testing.assert_array_equal(np.where(tokens == PAD, PAD, likeliest), tokens)


def test_beam_networks(translators):
    """Both twins find the same hypotheses and scores; the score is that of the whole target."""
    tokens, scores = jax.jit(translators.flax.beam, static_argnums=1)(translators.source, 3)
    found, theirs = translators.torch.beam(translators.torch_source, 3)
    np.testing.assert_array_equal(found, tokens)
    np.testing.assert_allclose(theirs, scores, rtol=1e-10)
    first = jnp.full((7, 1), START, jnp.int32)
    logits = translators.call(translators.source, jnp.concatenate([first, tokens[:, :-1]], axis=1))
    logs = jax.nn.log_softmax(logits.at[..., PAD].set(-jnp.inf))
    logs = jnp.take_along_axis(logs, tokens[..., None], axis=-1)[..., 0]
    present = tokens != PAD
    total = jnp.where(present, logs, 0).sum(1) / ((5 + present.sum(1)) / 6) ** 0.6
    np.testing.assert_allclose(scores, total, rtol=1e-10)


def test_padding_networks(translators):
    """More padding behind the sources changes nothing, and neither does what comes later."""
    logits = translators.call(translators.source, translators.target)
    wider = jnp.pad(translators.source, ((0, 0), (0, 1)), constant_values=PAD)
    with_more = translators.call(wider, translators.target)
    np.testing.assert_allclose(with_more, logits, rtol=0, atol=1e-12)
    other = translators.target.at[:, 2:].set(START)
    np.testing.assert_allclose(
        translators.call(translators.source, other)[:, :2], logits[:, :2], rtol=0, atol=1e-12
    )
    assert np.abs(translators.call(translators.source, other) - logits).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size 0 is too small; use 1 or more"),
        ({"max_length": 0}, "max_length 0 is (too small|out of range); use 1"),
    ],
)
def test_wrong(translators, options, message):
    """An impossible size is named with its value."""
    with pytest.raises(ValueError, match=message):
        translators.flax.beam(translators.source, **options)
    with pytest.raises(ValueError, match=message):
        translators.torch.beam(translators.torch_source, **options)


def test_unknown_token(translators):
    """A token that the vocabulary lacks is an error that names it."""
    with pytest.raises(ValueError, match="index 99 is not one of 11 rows"):
        translators.flax.greedy(translators.source.at[0, 0].set(99))
