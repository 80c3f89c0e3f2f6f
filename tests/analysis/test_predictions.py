"""Bins of several runs together, against the bins of all their examples."""

import numpy as np

from lotcal_tf.analysis.predictions import pooled
from lotcal_tf.metrics.bins import bin_statistics


def test_pooled_bins_are_those_of_all_examples():
    draw = np.random.default_rng(0)
    parts = [(draw.random(n) < 0.5, 0.3 + 0.4 * draw.random(n)) for n in (20, 50)]
    found = pooled([bin_statistics(hits, sure, 8) for hits, sure in parts])
    whole = bin_statistics(*(np.concatenate(both) for both in zip(*parts, strict=True)), 8)
    np.testing.assert_array_equal(found.counts, whole.counts)
    np.testing.assert_allclose(found.confidence, whole.confidence)
    np.testing.assert_allclose(found.accuracy, whole.accuracy)
    assert np.isnan(found.accuracy[0]), "an empty bin stays empty"
