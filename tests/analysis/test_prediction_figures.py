"""Curves and cells of predictions by hand, and that every figure is drawn."""

import numpy as np
import pytest

from lotcal_tf.analysis import prediction_figures as figures
from lotcal_tf.analysis.networks import Plane, Predicted, Shown, plane
from lotcal_tf.analysis.runs import read_run
from tests.analysis.conftest import write_run
from tests.analysis.test_label_noise_figures import shape


def predicted(probability, labels, noisy=None):
    """Predictions of class 1 of two classes."""
    p = np.asarray(probability, np.float64)
    labels = np.asarray(labels)
    noisy = labels if noisy is None else np.asarray(noisy)
    return Predicted(labels, noisy, np.log(np.stack([1 - p, p], axis=1)))


def test_a_curve_is_the_mean_over_classes_and_seeds():
    # Class 1 has probability 0.85 for 20 examples, 15 of which are of class 1; class 0 has 0.15.
    first = predicted([0.85] * 20, [1] * 15 + [0] * 5, [0] * 20)
    # Another seed: 10 of 20; and 9 examples at 0.35 are too few for a bin.
    second = predicted([0.85] * 20 + [0.35] * 9, [1] * 10 + [0] * 10 + [1] * 9)
    curve = figures.class_curve([first, second], noisy=False)
    full = np.flatnonzero(np.isfinite(curve.share))
    assert full.tolist() == [1, 8]
    assert curve.predicted[full] == pytest.approx([0.15, 0.85])
    assert curve.share[full] == pytest.approx([(0.25 + 0.5) / 2, (0.75 + 0.5) / 2])
    assert curve.deviation[full] == pytest.approx([0.25 / np.sqrt(2)] * 2)
    of_noise = figures.class_curve([first], noisy=True)
    assert of_noise.share[[1, 8]] == pytest.approx([1, 0])
    assert np.isnan(of_noise.deviation).all(), "one curve has no deviation"


def test_gaps_are_means_over_seeds_in_cells():
    places = np.array([[0.0, 0.0], [0.01, 0.01], [1.0, 1.0]] * 400)
    truth = np.array([0.5, 0.5, 0.9] * 400)
    found = Plane(places, places[:, 0], truth, np.zeros((2, 1, 2)))
    one = predicted([0.6, 0.8, 0.9] * 400, [0] * 1200)
    two = predicted([0.4, 0.4, 0.7] * 400, [0] * 1200)
    values, first, second = figures.gaps([one, two], found)
    assert values.shape == (14, 14) and first.shape == second.shape == (15,)
    # (0.1 + 0.1) / 2 and (0.3 + 0.1) / 2 share a cell; the other has (0 + 0.2) / 2.
    assert values[0, 0] == pytest.approx(0.15) and values[-1, -1] == pytest.approx(0.1)
    assert np.isfinite(values).sum() == 2


def shown(run, names=("full", "best ticket", "small dense"), classes=2, examples=5000):
    draw = np.random.default_rng(0)

    def one():
        labels = draw.integers(0, classes, examples)
        return Predicted(labels, labels, draw.normal(size=(examples, classes)))

    return Shown(run.model, run, {name: [one(), one()] for name in names})


@pytest.mark.parametrize("source", ["mixture_linear", "mixture_xor"])
def test_mixtures_are_drawn(tmp_path, source):
    run = read_run(write_run(tmp_path / "a", fields={"source": source, "nu": 0.5, "dimensions": 4}))
    found = [shown(run), shown(run, names=("full", "best ticket"))]
    assert shape(figures.conditionals(found))[0] > 1.5 * shape(figures.conditionals(found[:1]))[0]
    assert plane(run) is not None
    # Predictions of other data than the mixture's test split.
    assert figures.conditionals([shown(run, examples=100)]) is None


def test_calibration_and_confidence_are_drawn_for_any_data(tmp_path):
    run = read_run(write_run(tmp_path / "a"))
    found = [shown(run, classes=10, examples=300), shown(run, ("full",), classes=10, examples=300)]
    assert figures.conditionals(found) is None
    for draw in (figures.calibration, figures.confidences):
        assert shape(draw(found))[0] > 1.5 * shape(draw(found[:1]))[0]
