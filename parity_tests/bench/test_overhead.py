"""The step written by hand and `TrainStep` are the same mathematics, on as large a state."""

import jax
import numpy as np
import pytest

from flaxnets.bench import overhead


def test_both_steps_agree():
    """Losses, accuracies and what five steps add to the weights, to float32 rounding."""
    ours, hand, hand_state, batch = overhead.steps(depth=3)
    state, starts = ours.state, [np.array(leaf) for leaf in ours.state.params]
    for _ in range(5):
        state, metrics = ours(state, batch)
        hand_state, hand_metrics = hand(hand_state, batch)
        for name, value in hand_metrics.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
    for kind in (0, 1):  # TrainStep has the bias of a layer before its kernel, the hand behind it
        theirs = hand_state.params[1 - kind :: 2]
        own = zip(starts[kind::2], state.params[kind::2], theirs, strict=True)
        for start, one, other in own:
            np.testing.assert_allclose(one - start, other - start, rtol=1e-4, atol=1e-7)


def test_state_is_large_and_donated():
    """The network that is timed has 250 leaves or more, and the hand's step donates them."""
    _, hand, hand_state, batch = overhead.steps(depth=3)
    assert len(hand_state.params) == 6
    assert 2 * overhead.LAYERS >= 250
    hand(hand_state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(hand_state))


def test_measure():
    """Leaves are counted and the ratio is that of the times."""
    found = overhead.measure(depth=3, rounds=3, turn=0.01)
    assert found.leaves == 3 * 6 + 3  # parameters, two moments of each, Adam's count, key and step
    assert found.ratio == pytest.approx(found.flaxnets_ms / found.by_hand_ms, rel=1e-12)
    assert found.ratio > 0
