"""The digits are scikit-learn's, all of them, each in one split."""

from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_digits

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data import digits


def load(seed=0, validation_size=200):
    return digits.load(Experiment(seed=seed, validation_size=validation_size))


def members(inputs, labels):
    """A multiset: a few of the images are twice in the set."""
    return Counter(
        (np.float32(image).tobytes(), int(label))
        for image, label in zip(inputs, labels, strict=True)
    )


def members_of(split):
    return members(split.inputs.numpy(), split.labels.numpy())


@pytest.fixture(scope="module")
def dataset():
    return load()


def test_every_image_is_in_one_split(dataset):
    splits = dataset.named_splits()
    assert {name: split.count for name, split in splits.items()} == {
        "train": 1797 - 360 - 200,
        "val": 200,
        "test": 360,
    }
    bunch = load_digits()
    assert sum(map(members_of, splits.values()), Counter()) == members(bunch.images, bunch.target)


def test_shape_classes_and_range(dataset):
    assert (dataset.train.shape, dataset.classes) == ((8, 8, 1), 10)
    values = dataset.train.inputs.numpy()
    assert (values.min(), values.max(), dataset.input_range) == (0.0, 16.0, 16.0)
    for split in dataset.named_splits().values():
        assert set(split.labels.numpy()) == set(range(10))


def test_the_test_split_is_the_same_for_every_seed_and_the_others_are_not(dataset):
    other = load(seed=1)
    np.testing.assert_array_equal(other.test.inputs, dataset.test.inputs)
    np.testing.assert_array_equal(other.test.labels, dataset.test.labels)
    assert members_of(other.validation) != members_of(dataset.validation)
    again = load()
    np.testing.assert_array_equal(again.train.inputs, dataset.train.inputs)


def test_validation_is_a_tenth_by_default():
    assert load(validation_size=None).validation.count == 143  # of 1 437
