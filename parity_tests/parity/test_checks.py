"""What the checks measure with; what they judge is in test_proof.py and test_mutations.py."""

import numpy as np
import pytest
import scipy.stats

from flaxnets.parity.checks import _distance


def test_distance_of_samples():
    """Kolmogorov's and Smirnov's distance is scipy's; single numbers and constants have one too."""
    rng = np.random.default_rng(0)
    ours, theirs = rng.random(300), rng.standard_normal(200)
    expected = scipy.stats.ks_2samp(ours, theirs).statistic
    assert _distance(ours, theirs) == pytest.approx(expected, abs=1e-12)
    assert _distance(ours[:1], theirs[:1]) == 1
    assert _distance(np.ones(3), np.ones(5)) == 0
    assert _distance(np.ones(3), np.zeros(3)) == np.inf
