"""Rates are exact, kinds do what they say, and the test labels stay clean."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.arrays import from_arrays, from_pipelines
from lotcal_tf.data.noise import noisy_labels, with_label_noise
from lotcal_tf.errors import FieldError
from lotcal_tf.metrics.conditional import label_maps

CLASSES, COUNTS = 5, {"train": 90, "val": 10, "test": 45}
IMAGE = (1, 2, 3, 4, 0)


def examples(count, start=0):
    numbers = np.arange(start, start + count)
    return np.stack([numbers, -numbers], 1).astype(np.float32), numbers % CLASSES


def plain(streamed=False):
    given = [examples(90), examples(45, 1000), examples(10, 100)]
    if not streamed:
        return from_arrays(*given, classes=CLASSES, validation_size=None, seed=0)
    pipelines = [tf.data.Dataset.from_tensor_slices(pair) for pair in given]
    common = {"classes": CLASSES, "validation_size": None, "seed": 0}
    return from_pipelines(*pipelines, memory_limit_mb=0, shuffle_buffer=7, **common)


def noise(kind="symmetric", rate=0.25, **fields):
    image = IMAGE if kind == "asymmetric" else ()
    return Experiment(label_noise=rate, noise_kind=kind, noise_map=image, **fields)


def labels_of(dataset):
    splits = dataset.named_splits().items()
    return {name: next(iter(split.in_order(1000)))[1].numpy() for name, split in splits}


def test_without_noise_nothing_is_touched():
    dataset = plain()
    assert with_label_noise(dataset, Experiment()) is dataset


# round(0.25 · 90) = 22.5 and round(0.25 · 10) = 2.5: halves go up.
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_exactly_the_share_of_training_and_validation_labels_is_wrong(kind, streamed):
    clean, noisy = plain(), with_label_noise(plain(streamed), noise(kind))
    before, after = labels_of(clean), labels_of(noisy)
    wrong = {name: int((before[name] != after[name]).sum()) for name in before}
    assert wrong == {"train": 23, "val": 3, "test": 0}
    assert noisy.wrong_labels == {"train": 23 / 90, "val": 3 / 10}
    # round(0.25 · 45) = 11.25 of the copy.
    assert int((noisy.noisy_test_labels != before["test"]).sum()) == 11


@pytest.mark.parametrize("kind", ["symmetric", "uniform", "asymmetric"])
def test_streamed_and_in_memory_noise_is_the_same(kind):
    one, other = (with_label_noise(plain(streamed), noise(kind)) for streamed in (False, True))
    for name, labels in labels_of(one).items():
        np.testing.assert_array_equal(labels, labels_of(other)[name])
    np.testing.assert_array_equal(one.noisy_test_labels, other.noisy_test_labels)
    assert one.wrong_labels == other.wrong_labels


def test_inputs_stay():
    noisy = with_label_noise(plain(), noise())
    for name, split in plain().named_splits().items():
        np.testing.assert_array_equal(
            next(split.in_order(100))[0], next(noisy.named_splits()[name].in_order(100))[0]
        )


def test_seeds_and_splits_draw_by_themselves():
    clean = np.zeros(400, np.int32)
    maps = label_maps("symmetric", CLASSES)

    def places(seed, split):
        return set(np.flatnonzero(noisy_labels(clean, 0.25, maps, seed, split)))

    assert places(0, "train") == places(0, "train")
    drawn = [places(0, "train"), places(1, "train"), places(0, "val")]
    assert [len(found) for found in drawn] == [100] * 3
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        # 25 are expected in common, of deviation 3.8 (hypergeometric).
        assert len(drawn[one] & drawn[other]) < 25 + 5 * 3.8


def test_a_higher_rate_adds_noise_and_leaves_what_was_noisy():
    clean = np.arange(200, dtype=np.int32) % CLASSES
    low, high = (
        set(np.flatnonzero(noisy_labels(clean, r, label_maps("symmetric", 5), 0, "train") != clean))
        for r in (0.2, 0.4)
    )
    assert (len(low), len(high)) == (40, 80)
    assert low < high


@pytest.mark.parametrize("kind", ["symmetric", "uniform", "asymmetric"])
def test_noisy_labels_go_where_the_kind_sends_them(kind):
    clean = np.arange(60_000, dtype=np.int32) % CLASSES
    found = noisy_labels(clean, 0.6, label_maps(kind, CLASSES, IMAGE), 3, "train")
    # Shares by the definitions, row: the clean class, column: by how much the label has moved on.
    shares = {
        "symmetric": [0.4, 0.15, 0.15, 0.15, 0.15],
        "uniform": [0.52, 0.12, 0.12, 0.12, 0.12],
        "asymmetric": [0.4, 0.6, 0.0, 0.0, 0.0],
    }[kind]
    counts = np.zeros((CLASSES, CLASSES))
    np.add.at(counts, (clean, (found - clean) % CLASSES), 1)
    error = np.sqrt(np.multiply(shares, np.subtract(1, shares)) / 12_000)
    assert (np.abs(counts / 12_000 - shares) <= 4.5 * error).all()


def test_the_truth_is_that_of_the_noise():
    clean = labels_of(plain())["test"]
    found = with_label_noise(plain(), noise("uniform", 0.2)).truth
    np.testing.assert_allclose(found[np.arange(45), clean], 0.8 + 0.2 / 5, rtol=1e-12)
    np.testing.assert_allclose(np.sort(found)[:, :-1], 0.2 / 5, rtol=1e-12)


def test_a_truth_that_the_data_brings_is_seen_through_the_noise():
    truth = np.tile([0.5, 0.25, 0.25, 0.0, 0.0], (45, 1))
    dataset = dataclasses.replace(plain(), truth=truth)
    found = with_label_noise(dataset, noise("asymmetric", 0.4)).truth
    # 0.6 of its own, 0.4 of the class before.
    expected = [0.3, 0.15 + 0.2, 0.15 + 0.1, 0.1, 0.0]
    np.testing.assert_allclose(found, np.tile(expected, (45, 1)), atol=1e-12)


def test_without_test_data_there_is_no_truth():
    dataset = from_arrays(examples(90), None, classes=CLASSES, validation_size=9, seed=0)
    noisy = with_label_noise(dataset, noise())
    assert (noisy.truth, noisy.noisy_test_labels) == (None, None)
    assert noisy.wrong_labels == {"train": 20 / 81, "val": 2 / 9}


@pytest.mark.parametrize("image", [(1, 0), (1, 2, 3, 4, 5), (0,) * 6, ()])
def test_a_map_of_other_classes_is_refused(image):
    wrong = Experiment(label_noise=0.2, noise_kind="asymmetric", noise_map=image)
    with pytest.raises(
        FieldError, match=r"^noise_map=.*: the data has 5 classes: give 5 of the numbers 0 … 4"
    ):
        with_label_noise(plain(), wrong)
