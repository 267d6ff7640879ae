"""The step written by hand and `TrainStep` are the same mathematics, on as large a state."""

import jax
import numpy as np

from flaxnets.bench import overhead


def test_both_steps_agree():
    """Losses, accuracies and weights after three steps, to float32 rounding."""
    ours, hand, hand_state, batch = overhead.steps(depth=3)
    state = ours.state
    for _ in range(3):
        state, metrics = ours(state, batch)
        hand_state, hand_metrics = hand(hand_state, batch)
        for name, value in hand_metrics.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
    weights = sorted(np.asarray(leaf).sum() for leaf in state.params)
    by_hand = sorted(np.asarray(leaf).sum() for leaf in hand_state.params)
    np.testing.assert_allclose(weights, by_hand, rtol=1e-4, atol=1e-5)


def test_state_is_large_and_donated():
    """The network that is timed has 250 leaves or more, and the hand's step donates them."""
    _, hand, hand_state, batch = overhead.steps(depth=3)
    assert len(hand_state.params) == 6
    assert 2 * overhead.LAYERS >= 250
    hand(hand_state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(hand_state))


def test_measure():
    """The ratio is that of the times, and small."""
    found = overhead.measure(depth=3, rounds=3, turn=0.01)
    assert found.leaves == 3 * 6 + 3  # parameters, two moments of each, Adam's count, key and step
    assert found.ratio == found.flaxnets_ms / found.by_hand_ms
    assert 0.2 < found.ratio < 5
