"""The rule on hand-made curves: what it finds, what it refuses to find, and under noise."""

import numpy as np
import pytest

from lotcal_tf.analysis import descent
from lotcal_tf.analysis.descent import find_descent

# The shape of a published run: light, critical, sweet, collapsed.
TRAIN = [0.0, 0.0, 0.0, 0.005, 0.03, 0.09, 0.15, 0.17, 0.18, 0.18, 0.20, 0.30, 0.60]
ERROR = [0.30, 0.30, 0.31, 0.33, 0.36, 0.30, 0.25, 0.22, 0.21, 0.205, 0.22, 0.32, 0.62]
EXAMPLES = 6000


def test_a_whole_run():
    found = find_descent(TRAIN, ERROR, EXAMPLES)
    assert (found.threshold, found.threshold_is_bound) == (3, False)
    assert (found.peak, found.best, found.lowest) == (4, 9, 9)
    # One standard error of 0.205 over 6000 is 0.0052: level 8 (0.21) is within, 10 (0.22) is not.
    assert (found.sweet_spot, found.best_is_bound) == ((8, 9), False)
    # Errors near 0.25 differ significantly from about 0.027 on: 0.22 does not, 0.32 does.
    assert found.collapse == 11
    assert found.verdict == "double descent"


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        (2, "too short: 2 levels, a peak needs at least 3"),
        (4, "no peak: ends before the interpolation threshold"),
        (5, "no peak: the error rises significantly without a significant fall before"),
    ],
)
def test_a_run_cut_before_the_fall_has_no_peak(levels, words):
    found = find_descent(TRAIN[:levels], ERROR[:levels], EXAMPLES)
    assert found.peak is found.best is found.sweet_spot is found.collapse is None
    assert not found.best_is_bound
    assert words in found.verdict


def test_a_run_that_ends_in_the_sweet_spot_gives_a_bound():
    found = find_descent(TRAIN[:10], ERROR[:10], EXAMPLES)
    assert (found.peak, found.best, found.best_is_bound, found.collapse) == (4, 9, True, None)
    assert "the best is a bound" in found.verdict
    # Also where chance made the level before the end the lowest.
    found = find_descent(TRAIN[:10], [*ERROR[:8], 0.205, 0.2052], EXAMPLES)
    assert (found.best, found.best_is_bound) == (8, True)
    # Past the sweet spot it is not a bound, even without a significant collapse.
    found = find_descent(TRAIN[:11], ERROR[:11], EXAMPLES)
    assert (found.best, found.best_is_bound, found.collapse) == (9, False, None)


def test_a_run_that_begins_at_the_peak_has_a_best_and_no_peak():
    found = find_descent(TRAIN[4:], ERROR[4:], EXAMPLES)
    assert (found.peak, found.threshold, found.best, found.collapse) == (None, None, 5, 7)
    assert "begins at its peak or after it" in found.verdict


def test_a_run_that_interpolates_to_its_end_bounds_the_threshold():
    found = find_descent([0.0] * 6, [0.30, 0.33, 0.36, 0.30, 0.22, 0.21], EXAMPLES)
    assert (found.threshold, found.threshold_is_bound) == (5, True)
    assert (found.peak, found.best, found.best_is_bound) == (2, 5, True)


def test_a_bump_in_the_collapse_is_no_peak():
    # The error of a network with too few weights jumps about; it does not over-fit there.
    train = [0.0, 0.0, 0.05, 0.1, 0.5, 0.8, 0.5, 0.9]
    error = [0.2, 0.2, 0.2, 0.2, 0.5, 0.8, 0.5, 0.9]
    found = find_descent(train, error, EXAMPLES)
    assert found.peak is found.best is None
    assert (
        found.verdict == "no peak: the error rises significantly without a significant fall before"
    )


def test_the_best_lies_after_the_peak_even_if_the_dense_network_is_better():
    error = [0.10, 0.10, 0.20, 0.30, 0.15, 0.14, 0.30]
    found = find_descent([0, 0, 0, 0.02, 0.1, 0.12, 0.3], error, EXAMPLES)
    assert (found.peak, found.best, found.lowest) == (3, 5, 1)


def test_ties_go_to_the_sparser():
    error = [0.30, 0.36, 0.36, 0.25, 0.20, 0.22, 0.20, 0.30]
    found = find_descent([0, 0, 0.01, 0.1, 0.15, 0.15, 0.15, 0.3], error, EXAMPLES)
    assert (found.peak, found.best, found.sweet_spot) == (2, 6, (6, 6))


def test_significant_difference_by_hand():
    # Two levels: the range of two normal values exceeds 1.96 sqrt(2) deviations in 5 % of cases.
    deviations = np.sqrt([0.25 / 100, 0.16 / 100])
    apart = descent.significant_difference(deviations)
    q = 1.959963984540054 * np.sqrt(2)
    assert apart[0, 0] == pytest.approx(q * deviations[0], rel=1e-6)
    wanted = q * np.sqrt((deviations**2).mean())
    assert apart[0, 1] == apart[1, 0] == pytest.approx(wanted, rel=1e-6)


def test_standard_error_is_binomial_and_never_0():
    assert descent.standard_error(0.2, 400) == pytest.approx(0.02)
    assert descent.standard_error(0.0, 100) == pytest.approx(np.sqrt(0.01 * 0.99 / 100))
    both = descent.standard_error(np.array([0.0, 1.0]), 100)
    assert both[0] == pytest.approx(both[1]) and both[0] > 0
    assert descent.standard_error(0.0, 1) == 0.5


def seeds_of(error, examples, count, wrong=0.0):
    """Chains as other validation examples would have measured them, each level by itself.

    Of the labels a share is wrong, the same ones for all levels, and no level predicts one of these.
    """
    draw = np.random.default_rng(0)
    right = round(examples * (1 - wrong))
    own = (np.asarray(error) - wrong) / (1 - wrong)
    for _ in range(count):
        yield (examples - right + draw.binomial(right, own)) / examples


def test_wrong_labels_that_levels_share_are_no_chance():
    # 400 labels are right, a tenth of them missed: 0.8 sqrt(0.1 · 0.9 / 400).
    assert descent.standard_error(0.28, 500, 0.2) == pytest.approx(0.012)
    drawn = np.array(list(seeds_of([0.28], 500, 20_000, wrong=0.2)))
    assert descent.standard_error(0.28, 500, 0.2) == pytest.approx(drawn.std(), rel=0.02)
    # A level lucky enough to be below the share has a standard error all the same.
    assert descent.standard_error(0.15, 500, 0.2) == pytest.approx(
        0.8 * np.sqrt(1 / 400 * (1 - 1 / 400) / 400)
    )


@pytest.mark.parametrize(
    ("classes", "wrong", "own"), [(2, 0.2, 0.2), (2, 0.125, 0.25), (3, 0.1, 0.3), (10, 0.18, 0.1)]
)
def test_the_standard_error_is_that_of_drawn_labels_of_few_classes(classes, wrong, own):
    draw = np.random.default_rng(0)
    right = round(1000 * (1 - wrong))
    errors = draw.binomial(right, own, 20_000)
    errors += draw.binomial(1000 - right, 1 - own / (classes - 1), 20_000)
    found = descent.standard_error(errors.mean() / 1000, 1000, wrong, classes)
    assert found == pytest.approx((errors / 1000).std(), rel=0.02)


def test_a_fall_that_shared_wrong_labels_would_hide_is_seen():
    train = [0.2, 0.2, 0.2, 0.21, 0.22, 0.3]
    error = [0.255, 0.245, 0.235, 0.228, 0.230, 0.27]
    assert find_descent(train, error, 3500).best is None
    found = find_descent(train, error, 3500, wrong_labels=0.18)
    assert (found.peak, found.best) == (None, 3)


def test_a_flat_run_over_wrong_labels_has_no_best_either():
    flat = seeds_of(np.full(26, 0.25), 5000, 400, wrong=0.18)
    found = [find_descent([0.02] * 26, e, 5000, wrong_labels=0.18) for e in flat]
    assert sum(run.best is not None for run in found) <= 33  # as below, without them


def test_a_flat_run_has_no_peak_whatever_the_seed():
    # Over 26 levels, all over-fitting: 5 % of runs may have one pair that surely differs, fewer
    # of them a rise and a fall. Of 400, 20 at most on average; 33 is three deviations more.
    flat = np.full(26, 0.3)
    found = [find_descent([0.02] * 26, e, EXAMPLES) for e in seeds_of(flat, EXAMPLES, 400)]
    assert sum(run.best is not None for run in found) <= 33


def test_a_run_is_read_alike_whatever_the_seed():
    found = [find_descent(TRAIN, error, EXAMPLES) for error in seeds_of(ERROR, EXAMPLES, 200)]
    assert {run.peak for run in found} == {4}
    assert {run.best for run in found} <= {7, 8, 9, 10}
    assert {run.collapse for run in found} <= {10, 11}  # both lie above the best


def test_only_a_rise_that_noise_cannot_make_is_a_peak():
    # The same curve over 60 examples: a standard error is 0.06, the rise of 0.06 says nothing.
    found = find_descent(TRAIN, ERROR, 60)
    assert found.peak is found.best is None


@pytest.mark.parametrize(
    ("train", "error", "examples"),
    [
        ([], [], 10),
        ([0.1], [0.1, 0.2], 10),
        ([0.1, 0.1], [0.1, 1.2], 10),
        ([0.1, np.nan], [0.1, 0.2], 10),
        ([0.1], [0.1], 0),
    ],
)
def test_invalid_columns_are_refused(train, error, examples):
    with pytest.raises(ValueError):
        find_descent(train, error, examples)


@pytest.mark.parametrize("wrong", [-0.1, 1.0, np.nan])
def test_a_share_of_wrong_labels_outside_its_range_is_refused(wrong):
    with pytest.raises(ValueError, match="wrong_labels"):
        find_descent(TRAIN, ERROR, EXAMPLES, wrong)
