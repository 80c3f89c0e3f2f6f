"""The claims against hand calculation on runs with made-up metrics."""

import numpy as np
import pytest

from lotcal_tf.analysis.label_noise import Study, best_size, compare, with_predictions


def test_spread_over_starting_sizes_by_hand(recorded_run, sized):
    study = Study(
        [
            sized(100, model="a", seed=0),
            sized(200, model="a", seed=1),
            sized(300, model="b", start=2000, seed=0),
            sized(300, model="b", start=2000, seed=1),
            # A bound and a run without a peak count as neither.
            recorded_run([4000, 3000, 2000, 1000], model="c", seed=0),
            recorded_run([4000, 3000], model="c", seed=1),
        ]
    )
    (found,) = study.spreads()
    assert (found.models, found.of_means) == (2, 2.0)  # means 150 and 300
    assert found.by_seed is not None
    assert (found.by_seed.n, found.by_seed.mean) == (2, (3 + 1.5) / 2)
    assert found.by_seed.sd == pytest.approx(1.5 / np.sqrt(2))
    a, b, c = study.cells()
    assert (a.sizes.n, a.sizes.mean, a.bounds, a.without) == (2, 150, 0, 0)
    assert (b.sizes.mean, b.sizes.sd) == (300, 0)
    assert (c.sizes, c.runs, c.bounds, c.without) == (None, 2, 1, 1)


def test_a_spread_takes_two_starting_sizes(sized):
    (found,) = Study([sized(100), sized(200, seed=1)]).spreads()
    assert (found.models, found.of_means, found.by_seed) == (1, None, None)


def test_rank_correlation_over_difficulties_by_hand(sized):
    sizes = {1: 100, 2: 300, 3: 200, 4: 400, 5: 500}
    study = Study(
        [sized(size, difficulty=d) for d, size in sizes.items()]
        + [sized(100 * d, difficulty=d, seed=1) for d in sizes]
    )
    found = study.correlation()
    # Means 100, 250, 250, 400, 500: ranks 1, 2.5, 2.5, 4, 5; covariance 9.5 of 10 and 9.5.
    assert (found.difficulties, found.models, found.missing) == (5, 1, "")
    assert found.of_means.rho == pytest.approx(9.5 / np.sqrt(10 * 9.5))
    # Each seed by itself: 0.9 and 1.
    assert (found.by_start_and_seed.n, found.by_start_and_seed.mean) == (2, pytest.approx(0.95))


def test_four_difficulties_are_too_few(sized):
    found = Study([sized(100 * d, difficulty=d) for d in range(1, 5)]).correlation()
    assert found.of_means is found.by_start_and_seed is None
    assert found.missing == "it needs at least 5 difficulties, and there are 4"


def test_a_starting_size_without_a_best_size_somewhere_has_no_part_in_the_correlation(
    recorded_run, sized
):
    small = [sized(100 * d, difficulty=d) for d in range(1, 6)]
    # Of a larger start there are larger best sizes, but at three difficulties alone.
    large = [sized(9000 - d, model="large", start=20_000, difficulty=d) for d in (1, 2, 3)]
    large += [recorded_run([20_000, 800], model="large", difficulty=d) for d in (4, 5)]
    found = Study(small + large).correlation()
    assert found.models == 1 and found.of_means.rho == pytest.approx(1)
    found = Study(large + small[:2]).correlation()
    assert found.of_means is None
    assert found.missing == "no starting size has a best ticket at each of the 5 difficulties"


def test_full_against_best_is_taken_run_by_run(recorded_run, sized):
    kl = "test_kl_true"
    runs = [
        sized(100, seed=0, **{kl: [0.4, 1, 1, 0.1, 9]}),
        sized(100, seed=1, **{kl: [0.6, 1, 1, 0.3, 9]}),
        sized(100, seed=2),  # does not know the truth
        recorded_run([1000, 800], seed=3, **{kl: [7, 7]}),  # has no best ticket
    ]
    found = compare(runs)[kl]
    assert (found.full.n, found.full.mean, found.best.mean) == (2, 0.5, pytest.approx(0.2))
    assert found.ratio.mean == pytest.approx((0.25 + 0.5) / 2)
    assert found.ratio.sd == pytest.approx(0.25 / np.sqrt(2))
    assert (found.difference.mean, found.difference.sd) == (pytest.approx(-0.3), pytest.approx(0))
    assert compare(runs)["test_error"].full.n == 3
    assert "test_tv_true" not in compare(runs)


def test_no_ratio_to_a_full_network_that_has_0(sized):
    found = compare([sized(100, test_wrong_confident=[0.0, 0, 0, 0.1, 0])])["test_wrong_confident"]
    assert found.ratio is None and found.difference.mean == pytest.approx(0.1)


def test_predictions_fill_in_what_an_older_run_has_no_column_for(sized):
    # Two wrong of three, one of them with confidence 0.95; then none wrong.
    labels = np.array([1, 1, 0])
    full = labels, np.log([[0.95, 0.05], [0.6, 0.4], [0.99, 0.01]])
    best = labels, np.log([[0.05, 0.95], [0.4, 0.6], [0.99, 0.01]])
    before = sized(100)
    found = compare([with_predictions(before, {0: full, 3: best})])["test_wrong_confident"]
    assert (found.full.mean, found.best.mean) == (0.5, 0.0)
    assert "test_wrong_confident" not in before.columns


def test_a_bound_is_no_best_size(recorded_run):
    bound = recorded_run([1000, 800, 600, 100])
    assert bound.descent.best == 3 and bound.descent.best_is_bound
    assert best_size(bound) is None
