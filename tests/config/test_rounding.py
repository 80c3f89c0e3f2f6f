"""Counts of a share, halves up, against exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from lotcal_tf.config.rounding import half_up


def exact(rate, count):
    """round(rate × count), halves up, in exact arithmetic: the rate is what its decimals say."""
    return (Fraction(str(rate)) * count + Fraction(1, 2)).__floor__()


@pytest.mark.parametrize(
    "value, expected",
    [(0.0, 0), (0.49, 0), (0.5, 1), (1.0, 1), (1.49, 1), (1.5, 2), (2.5, 3), (3.5, 4), (2.4999, 2)],
)
def test_half_up_by_hand(value, expected):
    assert half_up(value) == expected


def test_half_up_means_the_half_that_a_product_falls_short_of():
    assert 0.29 * 50 < 14.5
    assert half_up(0.29 * 50) == 15
    assert 0.7 * 378_606_485 < 265_024_539.5
    assert half_up(0.7 * 378_606_485) == 265_024_540


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.15, 0.2, 0.29, 0.333, 0.35, 0.7, 0.9])
def test_half_up_agrees_with_exact_arithmetic(rate):
    rng = np.random.default_rng(0)
    for survivors in [*range(2000), *rng.integers(10**6, 10**9, 2000).tolist()]:
        assert half_up(rate * survivors) == exact(rate, survivors), survivors
