"""The mixture's truth is checked by its definition and against sampling; its corners by counting."""

import itertools
import math

import numpy as np
import pytest

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.recipes import resolve
from lotcal_tf.data import mixtures
from lotcal_tf.errors import FieldError
from lotcal_tf.lottery.run import run_experiment
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.metrics import conditional


def load(**fields):
    return mixtures.load(Experiment(source="mixture", validation_size=50, **fields))


def test_clusters_lie_on_corners_of_their_own():
    centres = mixtures.corners(3, 2, 3)
    assert centres.shape == (3, 2, 3)
    found = {tuple(corner) for corner in centres.reshape(-1, 3)}
    assert len(found) == 6
    assert found < set(itertools.product([-1.0, 1.0], repeat=3))


def test_an_easier_tasks_clusters_are_among_a_harder_ones():
    easy, hard = mixtures.corners(3, 2, 10), mixtures.corners(3, 5, 10)
    np.testing.assert_array_equal(hard[:, :2], easy)


def test_as_many_as_there_are_corners_can_be_placed_and_no_more():
    assert load(mixture_classes=4, mixture_clusters=2, mixture_dimensions=3).classes == 4
    with pytest.raises(FieldError) as caught:
        load(mixture_classes=5, mixture_clusters=2, mixture_dimensions=3)
    assert str(caught.value) == (
        "mixture_classes=5: 2 clusters per class need 10 corners, and a cube of 3 dimensions has 8; "
        "reduce mixture_classes or mixture_clusters, or raise mixture_dimensions"
    )


def test_truth_is_bayes_rule_by_hand():
    # Two clusters of class 0 at (-1) and one of class 1 at 1, in one dimension, at x = 0.25.
    centres = np.array([[[-1.0], [-1.0]], [[1.0], [-1.0]]])
    s = 2 * mixtures.DEVIATION**2
    near, far = math.exp(-(0.75**2) / s), math.exp(-(1.25**2) / s)
    zero, one = 2 * far, near + far
    (found,) = mixtures.conditional(centres, np.array([[0.25]]))
    np.testing.assert_allclose(found, [zero / (zero + one), one / (zero + one)], rtol=1e-12)


def test_truth_stays_exact_far_from_every_corner():
    centres = mixtures.corners(3, 2, 4)
    found = mixtures.conditional(centres, np.full((1, 4), 1e3, np.float32))
    assert np.isfinite(found).all()
    assert found.sum() == pytest.approx(1)


def test_classes_and_errors_of_a_sample_are_what_the_truth_expects():
    centres = mixtures.corners(4, 3, 5)
    inputs, labels = mixtures.draw(centres, 100_000, "check")
    truth = mixtures.conditional(centres, inputs)
    counts = np.bincount(labels, minlength=4) / 100_000
    assert (np.abs(counts - 0.25) < 4.5 * math.sqrt(0.25 * 0.75 / 100_000)).all()
    expected = conditional.bayes_error(truth)
    errors = np.mean(truth.argmax(1) != labels)
    assert abs(errors - expected) < 4.5 * math.sqrt(expected * (1 - expected) / 100_000)
    # Not of the classes alone: wherever the truth says p, a share p of the labels is of the class.
    chances, hits = truth[:, 1], labels == 1
    for low, high in itertools.pairwise(np.linspace(0, 1, 6)):
        here = (chances >= low) & (chances <= high)
        error = math.sqrt(np.sum(chances[here] * (1 - chances[here]))) / here.sum()
        assert abs(hits[here].mean() - chances[here].mean()) < 4.5 * error


def test_an_examples_spread_is_the_deviation_in_every_dimension():
    centres = mixtures.corners(2, 1, 3)
    inputs, labels = mixtures.draw(centres, 50_000, "check")
    rest = inputs - centres[labels, 0]
    error = mixtures.DEVIATION / math.sqrt(2 * 50_000)
    assert (np.abs(rest.std(0) - mixtures.DEVIATION) < 4.5 * error).all()
    assert (np.abs(rest.mean(0)) < 4.5 * mixtures.DEVIATION / math.sqrt(50_000)).all()


def test_truth_is_of_the_test_examples_as_they_are_stored():
    dataset = load()
    inputs = dataset.test.inputs.numpy()
    fields = [getattr(Experiment(), f"mixture_{n}") for n in ("classes", "clusters", "dimensions")]
    expected = mixtures.conditional(mixtures.corners(*fields), inputs)
    np.testing.assert_array_equal(dataset.truth, expected)
    assert dataset.input_range is None


def test_the_task_is_the_same_for_every_seed_and_validation_is_not():
    one, other = load(seed=0), load(seed=1)
    np.testing.assert_array_equal(one.test.inputs, other.test.inputs)
    np.testing.assert_array_equal(one.truth, other.truth)
    assert not np.array_equal(one.validation.inputs, other.validation.inputs)


def test_more_clusters_are_harder():
    errors = [
        conditional.bayes_error(load(mixture_clusters=clusters).truth) for clusters in (1, 2, 4, 8)
    ]
    assert errors == sorted(errors)
    assert len(set(errors)) == 4


@pytest.mark.full
def test_the_recipe_over_fits_and_its_selected_ticket_is_nearer_to_the_truth(tmp_path):
    # The recipe's training; two large prunings instead of many small ones, so that it takes seconds.
    flags = {"dataset": "mixture", "prune_rate": 0.8, "levels": 2, "out": str(tmp_path / "run")}
    run = run_experiment(resolve(flags), progress=False)
    dense, selected = run.records[0], run.selected.record
    assert dense["train_accuracy"] > 0.99, "the noise is memorised"
    # 200 of 1 000 labels are redrawn, and a quarter of them keeps its value.
    assert selected["train_accuracy"] < 0.9
    assert dense["test_kl_true"] >= 2 * selected["test_kl_true"]
    realised = RunStore(run.directory).experiment()["realised"]
    error = math.sqrt(200 * 0.25 * 0.75) / 1000
    assert abs(realised["wrong_labels"]["train"] - 0.15) < 4.5 * error
