"""Confidence on unseen data, by hand."""

import numpy as np
import pytest

from lotcal_tf.metrics.unseen import auroc, measure_unseen


def test_auroc_by_hand_with_ties():
    # Pairs won of (.9, .5, .5, .2) against (.5, .4): .9 wins 2; each .5 wins 1 and ties 1; .2 none.
    assert auroc([0.9, 0.5, 0.5, 0.2], [0.5, 0.4]) == pytest.approx((2 + 1.5 + 1.5 + 0) / 8)


@pytest.mark.parametrize(
    ("known", "unseen", "area"),
    [
        ([0.8, 0.9], [0.1, 0.7], 1.0),
        ([0.1, 0.7], [0.8, 0.9], 0.0),
        ([1.0, 1.0, 1.0], [1.0, 1.0], 0.5),
        ([0.3], [0.3], 0.5),
    ],
)
def test_auroc_at_its_ends_and_where_all_are_equal(known, unseen, area):
    assert auroc(known, unseen) == pytest.approx(area)


def test_auroc_is_the_share_of_pairs_won():
    draw = np.random.default_rng(0)
    # Few different values, so that many pairs tie.
    known, unseen = draw.integers(0, 9, 70) / 8, draw.integers(0, 7, 50) / 8
    pairs = [(k > u) + 0.5 * (k == u) for k in known for u in unseen]
    assert auroc(known, unseen) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert auroc(unseen, known) == pytest.approx(1 - np.mean(pairs), abs=1e-12)


@pytest.mark.parametrize("bad", [[], [np.nan, 0.5], [np.inf], [[0.5]]])
def test_bad_scores(bad):
    for pair in ((bad, [0.5]), ([0.5], bad)):
        with pytest.raises(ValueError, match="scores must be finite"):
            auroc(*pair)


def test_measures_by_hand():
    # softmax of (log a, log 1-a): confidences .9 and .6 known, .8 and .6 unseen.
    known = np.log([[0.9, 0.1], [0.4, 0.6]])
    unseen = np.log([[0.2, 0.8], [0.6, 0.4]])
    found = measure_unseen(known, unseen)
    assert set(found) == {"confidence", "known_confidence", "auroc"}
    assert found["confidence"] == pytest.approx(0.7)
    assert found["known_confidence"] == pytest.approx(0.75)
    # .9 beats both; .6 loses to .8 and ties with .6, up to what exp and log make of it.
    exact = measure_unseen(2 * np.eye(2), [[2.0, 0.0], [0.0, 0.0]])
    assert exact["auroc"] == pytest.approx((0.5 + 1 + 0.5 + 1) / 4)
