"""Temperature scaling against multiples that are known, a grid, and figures worked out by hand."""

import numpy as np
import pytest

from lotcal_tf.calibration.post_hoc import HIGHEST, LOWEST, chosen_temperature, fit_temperature


def nll(labels, logits):
    shifted = logits - logits.max(1, keepdims=True)
    return np.mean(np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels])


def calibrated(classes=3, repeats=20):
    """Labels whose shares are exactly the predicted probabilities: of six predictions, /repeats."""
    rng = np.random.default_rng(classes)
    counts = rng.multinomial(repeats - classes, np.full(classes, 1 / classes), size=6) + 1
    logits = np.repeat(np.log(counts / repeats), repeats, 0)
    labels = np.concatenate([np.repeat(np.arange(classes), row) for row in counts])
    return labels, logits


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("multiple", [0.05, 0.3, 1.0, 2.5, 40.0])
def test_a_multiple_of_calibrated_logits_is_found(classes, multiple):
    """The NLL of calibrated predictions is stationary at T = 1: its derivative there is
    Σ_i (z_i[y_i] − Σ_k p_ik z_ik), 0 as labels are shared out as p says."""
    labels, logits = calibrated(classes)
    assert fit_temperature(labels, logits * multiple) == pytest.approx(multiple, rel=1e-4)


def test_by_hand():
    """Two classes, margin 4, three of four right: best where the confidence is 3/4,
    1 / (1 + exp(−4/T)) = 3/4, so T = 4 / log 3."""
    found = fit_temperature(np.array([0, 0, 0, 1]), np.array([[4.0, 0.0]] * 4))
    assert found == pytest.approx(4 / np.log(3), rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_temperature_of_a_grid_is_better(seed, dtype):
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(60, 4)) * 10 ** rng.uniform(-1, 1.5)).astype(dtype)
    labels = np.where(rng.random(60) < 0.6, logits.argmax(1), rng.integers(0, 4, 60))
    found = fit_temperature(labels, logits)
    wide = logits.astype(np.float64)
    grid = np.geomspace(LOWEST, HIGHEST, 4001)
    best = grid[np.argmin([nll(labels, wide / t) for t in grid])]
    assert LOWEST < best < HIGHEST
    assert found == pytest.approx(best, rel=0.003)  # The grid's step is 0.23 %.
    assert nll(labels, wide / found) <= nll(labels, wide / best) + 1e-12


def test_where_no_finite_temperature_is_best_a_bound_is_given():
    wrong = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert fit_temperature(np.array([1, 0]), wrong) == pytest.approx(HIGHEST, rel=1e-4)
    close = np.array([[1e-3, 0.0], [0.0, 1e-3]])
    assert fit_temperature(np.array([0, 1]), close) == pytest.approx(LOWEST, rel=1e-4)


def test_where_a_fit_would_be_chance_there_is_no_temperature():
    logits = np.tile([[4.0, 0.0]], (100, 1))
    labels = np.zeros(100, int)
    assert chosen_temperature(labels, logits) == 1  # all right
    assert fit_temperature(labels, logits) < 0.1  # a confidence of 1 for all
    labels[:25] = 1
    assert chosen_temperature(labels, logits) == fit_temperature(labels, logits)
    assert chosen_temperature(labels, logits) == pytest.approx(4 / np.log(3), rel=1e-4)
    assert chosen_temperature(labels[1:], logits[1:]) == 1  # 99 examples


def test_sure_and_right_predictions_stay_so():
    """Every T in a wide range gives an NLL of 0: any of them will do."""
    labels, logits = np.array([0, 1]), np.array([[900.0, 0.0], [0.0, 900.0]])
    found = fit_temperature(labels, logits)
    assert LOWEST <= found <= HIGHEST
    assert nll(labels, logits / found) < 1e-3
