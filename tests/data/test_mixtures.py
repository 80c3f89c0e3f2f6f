"""The mixtures' truth is checked by its definition and by sampling, the Bayes error by sampling and quadrature."""

import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data import mixtures
from lotcal_tf.data.mixtures import Mixture
from lotcal_tf.errors import FieldError
from lotcal_tf.lottery.run import run_experiment
from lotcal_tf.metrics import conditional

KINDS = ("mixture_linear", "mixture_xor")
MANY = 100_000


def load(source="mixture_linear", **fields):
    return mixtures.load(Experiment(source=source, validation_size=50, **fields))


def density(x, means):
    """Of a class at x, by its definition."""
    return np.mean([scipy.stats.multivariate_normal(mean).pdf(x) for mean in means])


def within(found, expected, count):
    """Whether a share of `count` draws is the expected one, up to 4.5 deviations."""
    return abs(found - expected) < 4.5 * math.sqrt(expected * (1 - expected) / count)


def test_the_means_are_the_published_ones():
    np.testing.assert_array_equal(Mixture(False, 0.5, 3).means, [[[0, 0, 0]], [[0.5, 0.5, 0.5]]])
    zero, one = Mixture(True, 0.5, 4).means
    np.testing.assert_array_equal(zero, [[0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]])
    np.testing.assert_array_equal(one, [[0, 0, 0.5, 0.5], [0.5, 0.5, 0, 0]])


@pytest.mark.parametrize("xor", [False, True])
def test_truth_is_bayes_rule(xor):
    mixture = Mixture(xor, 0.9, 4)
    for x in np.random.default_rng(0).normal(0.4, 1, (20, 4)):
        densities = np.array([density(x, means) for means in mixture.means])
        (found,) = mixture.conditional(x[None])
        np.testing.assert_allclose(found, densities / densities.sum(), rtol=1e-9)


@pytest.mark.parametrize("xor", [False, True])
def test_truth_stays_exact_far_from_every_mean(xor):
    found = Mixture(xor, 1.0, 4).conditional(np.full((1, 4), 1e4, np.float32))
    assert np.isfinite(found).all()
    assert found.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("xor", "nu", "dimensions"),
    [(False, 0.2, 100), (True, 0.3, 100), (True, 1.3, 2), (False, 1.0, 1)],
)
def test_a_sample_has_the_bayes_error_and_the_truth_as_its_frequencies(xor, nu, dimensions):
    mixture = Mixture(xor, nu, dimensions)
    inputs, labels = mixture.draw(MANY, "check")
    truth = mixture.conditional(inputs)
    assert np.bincount(labels).tolist() == [MANY // 2, MANY // 2]
    assert within(np.mean(truth.argmax(1) != labels), mixture.bayes_error, MANY)
    # The mean of 1 - max p* is the same, with a smaller deviation.
    expected = np.minimum(truth[:, 0], truth[:, 1])
    assert abs(expected.mean() - mixture.bayes_error) < 4.5 * expected.std() / math.sqrt(MANY)
    # Wherever the truth says p, a share p of the labels is of the class.
    for low, high in itertools.pairwise(np.linspace(0, 1, 6)):
        here = (truth[:, 1] >= low) & (truth[:, 1] <= high)
        error = math.sqrt(np.sum(truth[here, 1] * truth[here, 0])) / here.sum()
        assert abs(labels[here].mean() - truth[here, 1].mean()) < 4.5 * error


@pytest.mark.parametrize(("nu", "dimensions"), [(0.6, 100), (0.2, 10), (1.3, 2)])
def test_the_bayes_error_of_xor_by_quadrature(nu, dimensions):
    """Only the sums over the halves matter: two dimensions, means 0 or nu √(D / 2), deviation 1."""
    far = nu * math.sqrt(dimensions / 2)
    normal = scipy.stats.norm
    grid = np.linspace(-8, far + 8, 801)
    near, away = normal.pdf(grid), normal.pdf(grid - far)
    zero = np.outer(near, near) + np.outer(away, away)
    one = np.outer(near, away) + np.outer(away, near)
    values = np.minimum(zero, one) / 4
    expected = scipy.integrate.trapezoid(scipy.integrate.trapezoid(values, grid), grid)
    assert Mixture(True, nu, dimensions).bayes_error == pytest.approx(expected, rel=1e-3)


def test_the_bayes_error_by_hand():
    """Φ(-1) = 0.158655 and 2 Φ(-1) (1 - Φ(-1)) = 0.266968."""
    assert Mixture(False, 0.2, 100).bayes_error == pytest.approx(0.158655, abs=1e-6)
    assert Mixture(True, 0.2, 200).bayes_error == pytest.approx(0.266968, abs=1e-6)


def test_examples_have_unit_covariance_about_their_means():
    mixture = Mixture(True, 1.0, 4)
    inputs, labels = mixture.draw(MANY, "check")
    distances = ((inputs[:, None] - mixture.means[labels]) ** 2).sum(2)
    # Each component has a quarter of the examples; the nearer mean is mostly the right one.
    rest = inputs - mixture.means.mean((0, 1))
    between = np.array([[0.25 * (i == j) for j in range(4)] for i in range(4)])
    between[0, 1] = between[1, 0] = between[2, 3] = between[3, 2] = 0.25
    np.testing.assert_allclose(rest.T @ rest / MANY, np.eye(4) + between, atol=0.03)
    assert distances.min(1).mean() < 4


@pytest.mark.parametrize("source", KINDS)
def test_sizes_and_truth_of_the_data_set(source):
    dataset = load(source, nu=0.7, dimensions=6)
    assert (dataset.train.count, dataset.validation.count) == (10_000, 50)
    assert dataset.test.count == 5_000
    assert (dataset.classes, dataset.train.shape) == (2, (6,))
    inputs = dataset.test.inputs.numpy()
    expected = Mixture(source == "mixture_xor", 0.7, 6).conditional(inputs)
    np.testing.assert_array_equal(dataset.truth, expected)
    assert dataset.input_range is None


def test_the_task_is_the_same_for_every_seed_and_validation_is_not():
    one, other = load(seed=0), load(seed=1)
    np.testing.assert_array_equal(one.test.inputs, other.test.inputs)
    np.testing.assert_array_equal(one.truth, other.truth)
    assert not np.array_equal(one.validation.inputs, other.validation.inputs)


def test_only_the_means_depend_on_nu():
    (near, labels), (far, others) = (Mixture(False, nu, 3).draw(100, "train") for nu in (0.5, 1.0))
    np.testing.assert_array_equal(labels, others)
    np.testing.assert_allclose(far - near, 0.5 * np.repeat(labels[:, None], 3, 1), atol=1e-6)


@pytest.mark.parametrize("source", KINDS)
def test_a_larger_nu_is_easier(source):
    errors = [conditional.bayes_error(load(source, nu=nu).truth) for nu in (0.2, 0.4, 0.6)]
    assert errors == sorted(errors, reverse=True)
    assert len(set(errors)) == 3


def test_xor_needs_an_even_number_of_dimensions():
    with pytest.raises(FieldError, match="^dimensions=99: must be even"):
        load("mixture_xor", dimensions=99)
    assert load("mixture_linear", dimensions=99).train.shape == (99,)


def test_a_dense_network_fits_the_noise(tmp_path):
    """The labels of p* with noise are what training sees; a small network learns the task in seconds."""
    run = run_experiment(
        Experiment(
            **{"dataset": "mixture_linear", "source": "mixture_linear", "nu": 0.4},
            **{"label_noise": 0.05, "noise_kind": "uniform", "use_bias": False},
            **{"model": "lenet_20", "optimizer": "sgd", "lr": 0.1, "batch_size": 512},
            **{"epochs": 20, "levels": 0, "out": str(tmp_path / "run")},
        ),
        progress=False,
    )
    record = run.records[0]
    best = Mixture(False, 0.4, 100).bayes_error  # 0.0228
    assert best < 1 - record["test_accuracy"] < best + 0.05
    # Seen through the noise: (1 - r) best + r / 2, on this test sample.
    assert record["test_bayes_error"] == pytest.approx(0.95 * best + 0.025, abs=0.004)
