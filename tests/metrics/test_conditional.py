"""Conditionals by hand and against sampling; figures by hand and by identities."""

import numpy as np
import pytest

from lotcal_tf import metrics
from lotcal_tf.metrics import conditional

IMAGE = (2, 0, 1, 3)
RATE, K = 0.3, 4
KINDS = ("symmetric", "uniform", "asymmetric")


def by_hand(kind, y):
    """p*(k | clean label y) as MATH.md writes it."""
    low = {"symmetric": RATE / (K - 1), "uniform": RATE / K, "asymmetric": 0.0}[kind]
    row = np.full(K, low)
    row[y] = 1 - RATE + (RATE / K if kind == "uniform" else 0)
    if kind == "asymmetric":
        row[y] = 1 - RATE
        row[IMAGE[y]] += RATE
    return row


@pytest.mark.parametrize("kind", KINDS)
def test_conditional_of_a_sure_label_is_the_closed_form(kind):
    maps = conditional.label_maps(kind, K, IMAGE)
    found = conditional.seen_through_noise(np.eye(K), RATE, maps)
    np.testing.assert_allclose(found, [by_hand(kind, y) for y in range(K)], atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_conditional_of_an_unsure_label_is_what_sampling_gives(kind):
    clean, draws = np.array([0.5, 0.3, 0.2, 0.0]), 200_000
    rng = np.random.default_rng(1)
    labels = rng.choice(K, p=clean, size=draws)
    # Drawn by the words of the definition, not by the maps.
    noisy = np.where(
        rng.random(draws) < RATE,
        {
            "symmetric": (labels + rng.integers(1, K, draws)) % K,
            "uniform": rng.integers(0, K, draws),
            "asymmetric": np.array(IMAGE)[labels],
        }[kind],
        labels,
    )
    shares = np.bincount(noisy, minlength=K) / draws
    maps = conditional.label_maps(kind, K, IMAGE)
    (found,) = conditional.seen_through_noise(clean[None], RATE, maps)
    error = np.sqrt(found * (1 - found) / draws)
    assert (np.abs(shares - found) <= 4.5 * error).all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_noise_changes_nothing(kind):
    clean = np.random.default_rng(0).dirichlet(np.ones(K), 5)
    maps = conditional.label_maps(kind, K, IMAGE)
    np.testing.assert_array_equal(conditional.seen_through_noise(clean, 0.0, maps), clean)


@pytest.mark.parametrize("image", [(), (0, 1, 2), (0, 1, 2, 4), (0, 1, 2, -1)])
def test_a_map_of_other_classes_is_refused(image):
    with pytest.raises(ValueError, match="image must hold 4 classes"):
        conditional.label_maps("asymmetric", K, image)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be symmetric, uniform or asymmetric"):
        conditional.label_maps("pairwise", K)


TRUTH = np.array([[0.75, 0.25, 0.0], [0.5, 0.25, 0.25]])
P = np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]])


def test_figures_by_hand():
    found = conditional.measure(TRUTH, np.log(P) + 7)
    assert found == pytest.approx(
        {
            # 0.75 log 1.5; 0.5 log 4 + 0.25 log 2 + 0.25 log (1/3)
            "kl_true": (0.75 * np.log(1.5) + 1.25 * np.log(2) - 0.25 * np.log(3)) / 2,
            "tv_true": (0.25 + 0.5) / 2,
            "bayes_error": (0.25 + 0.5) / 2,
            # The first is predicted as Bayes would; the second as class 2 of 0.25 instead of 0.5.
            "excess_error": 0.25 / 2,
            # 1.5 log 2; 0.25 log 8 + 0.75 log (4/3)
            "entropy": (1.5 * np.log(2) + 0.25 * np.log(8) + 0.75 * np.log(4 / 3)) / 2,
            # 0.25 log 4 + 0.75 log (4/3); 1.5 log 2
            "entropy_true": (0.25 * np.log(4) + 0.75 * np.log(4 / 3) + 1.5 * np.log(2)) / 2,
        },
        abs=1e-14,
    )


def test_expected_nll_is_true_entropy_and_divergence():
    rng = np.random.default_rng(0)
    truth, logits = rng.dirichlet(np.ones(6), 20), 3 * rng.normal(size=(20, 6))
    # The NLL against soft labels is the expectation over labels drawn from them.
    expected = metrics.nll(truth, logits)
    found = conditional.true_entropy(truth) + conditional.kl_divergence(truth, logits)
    assert found == pytest.approx(expected, rel=1e-12)


def test_expected_error_is_bayes_error_and_excess():
    rng = np.random.default_rng(0)
    truth, logits = rng.dirichlet(np.ones(3), 40), rng.normal(size=(40, 3))
    labels = np.array([rng.choice(3, p=row, size=4000) for row in truth])
    errors = np.mean(labels != logits.argmax(1)[:, None])
    expected = conditional.bayes_error(truth) + conditional.excess_error(truth, logits)
    assert abs(errors - expected) < 4.5 * np.sqrt(0.25 / labels.size)


def test_a_prediction_that_is_the_truth_has_no_distance():
    truth = np.random.default_rng(0).dirichlet(np.ones(5), 30)
    found = conditional.measure(truth, np.log(truth))
    assert found["kl_true"] == pytest.approx(0, abs=1e-15)
    assert found["tv_true"] == pytest.approx(0, abs=1e-15)
    assert found["excess_error"] == 0
    assert found["entropy"] == pytest.approx(found["entropy_true"], rel=1e-12)


def test_extreme_logits_stay_finite():
    truth = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = conditional.measure(truth, [[1e4, -1e4], [1e4, -1e4]])
    assert found["kl_true"] == 1e4
    assert all(np.isfinite(list(found.values())))
    assert found["excess_error"] == 0.5


@pytest.mark.parametrize(
    "truth",
    [[[0.5, 0.6]], [[1.5, -0.5]], [0.5, 0.5], [[1.0]], np.ones((0, 2)), [[np.nan, 1.0]]],
)
def test_invalid_conditionals_are_refused(truth):
    with pytest.raises(ValueError, match="conditionals must"):
        conditional.measure(truth, [[0.0, 0.0]])


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="truth must have the logits' shape"):
        conditional.measure(TRUTH, P[:, :2])
