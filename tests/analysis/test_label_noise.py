"""The claims against hand calculation on runs with made-up metrics."""

import numpy as np
import pytest

from lotcal_tf.analysis.label_noise import Study, compare, with_predictions
from lotcal_tf.analysis.rules import Lowest, best_size, by_test, ece_minimum, lowest_pruned, size_at


def test_sizes_of_each_width_by_hand(recorded_run, sized):
    study = Study(
        [
            sized(100, model="net_1", seed=0),
            sized(200, model="net_1", seed=1),
            sized(300, model="net_2", start=2000, seed=0),
            sized(300, model="net_2", start=2000, seed=1),
            # A bound and a run without a peak count as neither.
            recorded_run([4000, 3000, 2000, 1000], model="net_3", seed=0),
            recorded_run([4000, 3000], model="net_3", seed=1),
        ]
    )
    a, b, c = study.cells()
    a_sizes, b_sizes, c_sizes = (cell.sizes["validation"] for cell in (a, b, c))
    assert (a_sizes.found.n, a_sizes.found.mean, a_sizes.bounds, a_sizes.without) == (2, 150, 0, 0)
    assert (b_sizes.found.mean, b_sizes.found.sd) == (300, 0)
    assert (c_sizes.found, c.runs, c_sizes.bounds, c_sizes.without) == (None, 2, 1, 1)


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
    assert (found.difference.mean, found.difference.sd) == (pytest.approx(-0.3), pytest.approx(0))
    assert compare(runs)["test_error"].full.n == 3
    assert "test_tv_true" not in compare(runs)


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


def test_the_published_rule_takes_the_lowest_test_error_of_an_over_parameterised_chain(sized):
    # Validation finds level 3; the clean test error is lowest at levels 1 and 2 alike: the sparser.
    run = sized(100, test_accuracy=[0.8, 0.9, 0.9, 0.85, 0.6])
    assert by_test(run) == Lowest(2, False) and run.descent.best == 3
    assert (best_size(run, by_test), best_size(run)) == (600, 100)
    # The chain ends at its lowest error; pruning does not lower the error; the dense one is too small.
    assert by_test(sized(100, test_accuracy=[0.8, 0.8, 0.8, 0.8, 0.9])) == Lowest(4, True)
    assert by_test(sized(100, test_accuracy=[0.9, 0.8, 0.8, 0.8, 0.6])) is None
    wide = {
        "test_accuracy": [0.8, 0.9, 0.9, 0.85, 0.6],
        "train_accuracy": [0.78, 0.8, 0.8, 0.8, 0.4],
    }
    assert by_test(sized(100, **wide)) == Lowest(2, False), "0.22 is 0.73 of 0.3"
    assert lowest_pruned(sized(100, **wide)) is None, "and more than half of it"
    wide["train_accuracy"][0] = 0.77
    assert by_test(sized(100, **wide)) is None, "0.23 is 0.77 of 0.3"


def test_a_collapsed_network_is_calibrated_and_no_minimum(sized):
    run = sized(100, test_ece=[0.3, 0.2, 0.1, 0.15, 0.01], test_noisy_ece=[0.3, 0.2, 0.2, 0.1, 0.0])
    assert run.descent.collapse == 4
    assert ece_minimum(run, "test_ece") == Lowest(2, False)
    # Lowest where the collapse begins: a bound, without a size.
    assert ece_minimum(run, "test_noisy_ece") == Lowest(3, True)
    assert size_at(run, ece_minimum(run, "test_noisy_ece")) is None
    # The same level, but the ECE rises with the collapse.
    rising = sized(100, test_ece=[0.3, 0.2, 0.2, 0.1, 0.2])
    assert ece_minimum(rising, "test_ece") == Lowest(3, False)
    assert ece_minimum(sized(100), "test_ece") is None


def test_the_small_dense_network_is_the_best_narrower_one_of_the_architecture(sized):
    def run(width, error, seed=0, model="lenet_{}"):
        accuracy = [1 - error, 0.6, 0.75, 0.8, 0.35]
        name, start = model.format(width), 1000 * width
        return sized(100, start=start, model=name, seed=seed, val_accuracy=accuracy)

    runs = [
        *(run(1, error, seed) for seed, error in enumerate((0.35, 0.35))),
        # The lowest mean, though not the lowest error of seed 0.
        *(run(2, error, seed) for seed, error in enumerate((0.36, 0.2))),
        *(run(3, error, seed) for seed, error in enumerate((0.32, 0.32))),
        run(4, 0.3),
        run(1, 0.1, model="other_{}_100"),
        run(9, 0.1),
    ]
    study = Study(runs)
    assert study.small_dense(runs[6]) is runs[2]
    assert study.small_dense(runs[4]) is runs[2] and study.small_dense(runs[5]) is runs[3]
    assert study.small_dense(runs[0]) is None is study.small_dense(runs[7])
    networks = study.networks([runs[6]])
    assert list(networks) == ["full", "best ticket", "lowest test error", "small dense"]
    weights = [one["weights"].mean for one in networks.values()]
    assert weights == [4000, 100, 100, 2000]


def test_sizes_at_the_lowest_ece_have_a_geometric_mean(sized):
    runs = [sized(100, seed=seed, test_ece=[0.9, 0.9, 0.9, 0.9, 0.9]) for seed in (0, 1)] + [
        sized(100, model="a_9", start=4000, test_ece=[0.1, 0.9, 0.9, 0.9, 0.9])
    ]
    runs[0].columns["test_ece"][2] = runs[1].columns["test_ece"][3] = 0.1
    first, second = Study(runs).cells()
    assert [first.model, second.model] == ["a_9", "net"], "in the order of architectures"
    assert second.minima["test_ece"].found.mean == pytest.approx(np.sqrt(600 * 100))
