"""Against hand calculation and published tables."""

import math

import pytest

from lotcal_tf.analysis.statistics import (
    RankCorrelation,
    Summary,
    paired_difference,
    rank_correlation,
    spread,
    summarise,
    summarise_ratios,
)


def test_summary_by_hand():
    found = summarise([2.0, 4.0, 9.0])
    # Deviations -3, -1, 4: squares 26, over 2; t(0.975, 2) = 4.302652730 of any table.
    half = 4.302652729911275 * math.sqrt(13) / math.sqrt(3)
    assert found is not None
    assert (found.n, found.mean) == (3, 5.0)
    assert found.sd == pytest.approx(math.sqrt(13))
    assert (found.low, found.high) == pytest.approx((5 - half, 5 + half))


def test_one_value_has_no_deviation_and_none_no_summary():
    assert summarise([3.0]) == Summary(1, 3.0, None, None, None)
    assert summarise([]) is None
    with pytest.raises(ValueError, match="finite"):
        summarise([1.0, math.nan])


def test_spread():
    assert spread([6, 3, 4.5]) == 2.0
    assert spread([6]) is spread([]) is None
    with pytest.raises(ValueError, match="above 0"):
        spread([1, 0])


def test_rank_correlation_by_hand():
    # Ranks differ by 0, 1, -1, 0, 0: 1 - 6 * 2 / (5 * 24).
    found = rank_correlation([1, 2, 3, 4, 5], [10, 30, 20, 400, 5000])
    assert found is not None and found.n == 5
    assert found.rho == pytest.approx(0.9)
    # Of the 120 orders 1 gives rho 1, the 4 swaps of neighbours 0.9; as many give the negatives.
    assert found.p == pytest.approx(10 / 120)
    perfect = rank_correlation([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    assert perfect is not None and perfect.p == pytest.approx(2 / 120)


def test_many_pairs_are_judged_by_student():
    # Ranks of 8 pairs, neighbours swapped twice: 1 - 6 * 4 / (8 * 63).
    found = rank_correlation([1, 2, 3, 4, 5, 6, 7, 8], [2, 1, 3, 4, 5, 6, 8, 7])
    assert found is not None
    rho = 1 - 24 / 504
    t = rho * math.sqrt(6 / (1 - rho**2))
    # The tail of Student's t with 6 degrees in closed form, with s = t / sqrt(6 + t²).
    s = t / math.sqrt(6 + t**2)
    tail = 1 - s * (1 + (1 - s**2) / 2 + 3 * (1 - s**2) ** 2 / 8)
    assert (found.rho, found.p) == pytest.approx((rho, tail))


def test_ties_share_their_rank():
    # Ranks of y: 1, 2.5, 2.5, 4. Pearson of ranks: cov 4.5, variances 5 and 4.5.
    found = rank_correlation([1, 2, 3, 4], [1, 2, 2, 3])
    assert isinstance(found, RankCorrelation)
    assert found.rho == pytest.approx(4.5 / math.sqrt(5 * 4.5))


def test_no_rank_correlation_of_constants_or_two_pairs():
    assert rank_correlation([1, 2, 3], [4, 4, 4]) is None
    assert rank_correlation([1, 2], [1, 2]) is None
    with pytest.raises(ValueError, match="must have the same length, got 3 and 2"):
        rank_correlation([1, 2, 3], [1, 2])


def test_pairs_are_matched_by_key():
    found = paired_difference({"a": 3.0, "b": 5.0, "c": 9.0}, {"b": 1.0, "a": 1.0, "d": 0.0})
    assert found is not None
    assert (found.n, found.mean) == (2, 3.0)
    assert found.sd == pytest.approx(math.sqrt(2))
    assert paired_difference({"a": 1.0}, {"b": 1.0}) is None


def test_ratios_are_summarised_by_their_logarithms():
    found = summarise_ratios([1.0, 4.0])
    # Logarithms 0 and 2 ln 2: mean ln 2, deviation √2 ln 2, so the half-width is t · ln 2; t(0.975, 1) = 12.7062.
    factor = 2**12.706204736174698
    assert (found.n, found.mean, found.sd) == (2, pytest.approx(2), None)
    assert (found.low, found.high) == pytest.approx((2 / factor, 2 * factor))
    assert summarise_ratios([3.0]) == Summary(1, pytest.approx(3.0), None, None, None)
    assert summarise_ratios([]) is None
    assert summarise_ratios([1e-300, 1e300]).high == math.inf
    with pytest.raises(ValueError, match="above 0"):
        summarise_ratios([1.0, 0.0])


@pytest.mark.parametrize("pairs", [5, 8, 10])
def test_a_perfect_order_has_the_probability_of_two_orders_of_all(pairs):
    found = rank_correlation(range(pairs), [x * x for x in range(pairs)])
    assert (found.rho, found.p) == (pytest.approx(1), pytest.approx(2 / math.factorial(pairs)))
