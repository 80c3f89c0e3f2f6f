"""Bins by hand, and what falls on their edges."""

import numpy as np
import pytest

from lotcal_tf.metrics.bins import bin_statistics, equal_mass_statistics

both = pytest.mark.parametrize("function", [bin_statistics, equal_mass_statistics])


def test_bin_statistics_by_hand():
    statistics = bin_statistics([1, 0, 1, 1], [0.7, 0.5, 0.9, 0.5], 5)
    np.testing.assert_array_equal(statistics.edges, [0, 1 / 5, 2 / 5, 3 / 5, 4 / 5, 1])
    np.testing.assert_array_equal(statistics.counts, [0, 0, 2, 1, 1])
    np.testing.assert_array_equal(statistics.confidence, [np.nan, np.nan, 0.5, 0.7, 0.9])
    np.testing.assert_array_equal(statistics.accuracy, [np.nan, np.nan, 0.5, 1.0, 1.0])
    np.testing.assert_allclose(statistics.gap, [np.nan, np.nan, 0.0, -0.3, -0.1], atol=1e-15)
    assert statistics.expected_gap == pytest.approx(0.1, abs=1e-15)


@pytest.mark.parametrize("bins", [1, 2, 3, 5, 6, 7, 10, 12, 15, 20, 49, 100, 1000])
def test_a_confidence_on_an_edge_is_in_the_lower_bin(bins: int):
    edges = [m / bins for m in range(1, bins + 1)]
    statistics = bin_statistics(np.ones(bins), edges, bins)
    np.testing.assert_array_equal(statistics.counts, np.ones(bins))
    np.testing.assert_array_equal(statistics.confidence, edges)  # in this order, one in each


@pytest.mark.parametrize("bins", [2, 3, 5, 7, 15, 100])
def test_a_confidence_beside_an_edge_is_on_its_own_side(bins: int):
    inner = np.arange(1, bins) / bins
    below = bin_statistics(np.ones(bins - 1), inner - 1e-9, bins)
    above = bin_statistics(np.ones(bins - 1), inner + 1e-9, bins)
    np.testing.assert_array_equal(below.counts, [1] * (bins - 1) + [0])
    np.testing.assert_array_equal(above.counts, [0] + [1] * (bins - 1))


def test_an_event_of_probability_zero_is_in_the_first_bin():
    # Never the highest of a softmax, but a class-wise error bins every class's probability.
    statistics = bin_statistics([0, 1], [0.0, 1.0], 4)
    np.testing.assert_array_equal(statistics.counts, [1, 0, 0, 1])


def test_equal_mass_by_hand():
    confidence = [0.9, 0.2, 0.6, 0.4, 0.8, 0.3, 0.7]
    correct = [1, 0, 1, 1, 0, 0, 1]
    # Seven in three bins: .2 .3 .4 | .6 .7 | .8 .9; right are one, two, one of them.
    statistics = equal_mass_statistics(correct, confidence, 3)
    np.testing.assert_array_equal(statistics.counts, [3, 2, 2])
    np.testing.assert_allclose(statistics.confidence, [0.3, 0.65, 0.85])
    np.testing.assert_allclose(statistics.accuracy, [1 / 3, 1.0, 0.5])
    np.testing.assert_array_equal(statistics.edges, [0.0, 0.6, 0.8, 1.0])
    expected = (3 * (1 / 3 - 0.3) + 2 * 0.35 + 2 * 0.35) / 7
    assert statistics.expected_gap == pytest.approx(expected, abs=1e-15)
    assert statistics.maximum_gap == pytest.approx(0.35, abs=1e-15)


def test_equal_mass_has_no_more_bins_than_examples():
    statistics = equal_mass_statistics([1, 0, 1], [0.5, 0.6, 0.7], 15)
    np.testing.assert_array_equal(statistics.counts, [1, 1, 1])
    np.testing.assert_array_equal(statistics.accuracy, [1, 0, 1])
    one = equal_mass_statistics([True], [1.0], 15)
    assert (one.counts.tolist(), one.edges.tolist()) == ([1], [0.0, 1.0])


def test_equal_mass_shares_the_accuracy_of_ties():
    # .5 .5 | .5 .9: two of the three ties are right, whichever of them falls into which bin.
    for ties in ([1, 1, 0], [1, 0, 1], [0, 1, 1]):
        statistics = equal_mass_statistics([*ties, 1], [0.5, 0.5, 0.5, 0.9], 2)
        np.testing.assert_array_equal(statistics.counts, [2, 2])
        np.testing.assert_allclose(statistics.accuracy, [2 / 3, (2 / 3 + 1) / 2], rtol=1e-15)


def test_equal_mass_does_not_depend_on_the_order_given():
    draw = np.random.default_rng(0)
    conf, correct = draw.integers(1, 6, 60) / 5, draw.integers(0, 2, 60)
    first = equal_mass_statistics(correct, conf, 7)
    for _ in range(5):
        order = draw.permutation(60)
        again = equal_mass_statistics(correct[order], conf[order], 7)
        np.testing.assert_allclose(again.accuracy, first.accuracy, rtol=1e-13)
        assert again.expected_gap == pytest.approx(first.expected_gap, abs=1e-14)


@pytest.mark.filterwarnings("error")
def test_empty_bins_do_not_count():
    statistics = bin_statistics([1, 0], [0.95, 0.05], 100)
    assert statistics.expected_gap == pytest.approx(0.05, abs=1e-15)
    assert statistics.maximum_gap == pytest.approx(0.05, abs=1e-15)


@both
@pytest.mark.parametrize("bins", [0, -3, 2.0, True, None])
def test_bad_bins(function, bins):
    with pytest.raises(ValueError, match=f"^bins must be an integer >= 1, got {bins}$"):
        function([0], [0.5], bins)


@both
@pytest.mark.parametrize(
    ("correct", "confidence", "message"),
    [
        ([1, 0], [0.5], r"correct and confidence must both .*, got \(2,\) and \(1,\)"),
        ([], [], r"correct and confidence must both .* N >= 1, got \(0,\) and \(0,\)"),
        ([[1]], [[0.5]], r"correct and confidence must both .*, got \(1, 1\) and \(1, 1\)"),
        ([1, 2], [0.5, 0.5], "correct must hold only 0 and 1, or booleans, got other values"),
        ([1, 0], [0.5, 1.5], r"confidence must lie in \[0, 1\], got 0.5 to 1.5"),
        ([1, 0], [-0.5, 0.5], r"confidence must lie in \[0, 1\], got -0.5 to 0.5"),
        ([1, 0], [np.nan, 0.5], r"confidence must lie in \[0, 1\], got nan to nan"),
    ],
)
def test_bad_arguments(function, correct: object, confidence: object, message: str):
    with pytest.raises(ValueError, match=f"^{message}$"):
        function(correct, confidence, 5)


def test_the_debiased_squared_gap_by_hand():
    # Four of 0.8 with three hits, two of 0.6 with none, one alone: it cannot be debiased.
    statistics = bin_statistics([1, 1, 1, 0, 0, 0, 1], [0.8, 0.8, 0.8, 0.8, 0.55, 0.65, 0.3], 5)
    first = 0.05**2 - 0.75 * 0.25 / 3
    second = 0.6**2 - 0.0
    # 0.55 and 0.6 share a bin, 0.65 is in that of 0.8.
    assert statistics.counts.tolist() == [0, 1, 1, 5, 0]
    confidence, share = (4 * 0.8 + 0.65) / 5, 3 / 5
    gap = (confidence - share) ** 2 - share * (1 - share) / 4
    assert statistics.debiased_squared_gap == pytest.approx(5 * gap / 7)
    apart = bin_statistics([1, 1, 1, 0, 0, 0], [0.8] * 4 + [0.6] * 2, 5)
    assert apart.debiased_squared_gap == pytest.approx((4 * first + 2 * second) / 6)


@pytest.mark.parametrize("gap", [0.0, 0.1])
def test_the_debiased_squared_gap_is_unbiased_and_the_plain_one_is_not(gap):
    """Confidences 0.5, 0.7 and 0.9 of 20 examples each, whose events are rarer by `gap`."""
    draw = np.random.default_rng(3)
    confidence = np.repeat([0.5, 0.7, 0.9], 20)
    plain, debiased = [], []
    for _ in range(4000):
        statistics = bin_statistics(draw.random(60) < confidence - gap, confidence, 10)
        plain.append(np.nansum(statistics.counts * statistics.gap**2) / 60)
        debiased.append(statistics.debiased_squared_gap)
    error = np.std(debiased) / np.sqrt(4000)
    assert np.mean(debiased) == pytest.approx(gap**2, abs=4 * error)
    assert np.mean(plain) > gap**2 + 20 * error
