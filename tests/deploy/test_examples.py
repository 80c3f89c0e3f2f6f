"""Examples of an export: the test split to compare on, validation and training data to quantise with."""

import numpy as np
import pytest

from lotcal_tf.data.splits import Dataset, ResidentSplit
from lotcal_tf.deploy.examples import Examples
from lotcal_tf.errors import UsageError


def part(count, first):
    """Inputs first, first + 1, … as bytes; labels by turns of three classes."""
    inputs = np.repeat(np.arange(first, first + count, dtype="uint8")[:, None], 2, 1)
    return inputs, np.arange(count, dtype="int32") % 3


TRAIN, VALIDATION, TEST = part(30, 0), part(20, 50), part(10, 100)


@pytest.fixture
def dataset():
    def make(*pairs):
        return Dataset(3, *(pair and ResidentSplit.of(*pair) for pair in pairs))

    return make


def test_files_are_compared_on_the_test_split_and_made_with_the_others(dataset):
    examples = Examples.of(dataset(TRAIN, VALIDATION, TEST), seed=7)
    assert examples.split == "test"
    assert examples.inputs.dtype == np.float32
    assert np.array_equal(examples.inputs, TEST[0]) and np.array_equal(examples.labels, TEST[1])
    material = examples.material
    assert np.array_equal(material.validation, VALIDATION[0])
    assert np.array_equal(material.labels, VALIDATION[1])
    assert (material.training.count, material.seed) == (30, 7)


def test_without_a_test_split_they_are_compared_on_validation_and_say_so(dataset):
    examples = Examples.of(dataset(TRAIN, VALIDATION, None))
    assert examples.split == "val"
    assert np.array_equal(examples.inputs, VALIDATION[0])


def test_arrays_of_ones_own():
    examples = Examples.given(TEST, VALIDATION, TRAIN)
    assert examples.split == "test" and np.array_equal(examples.inputs, TEST[0])
    assert np.array_equal(examples.material.validation, VALIDATION[0])
    assert examples.material.training.count == 30
    alone = Examples.given(TEST).material
    assert (alone.validation, alone.labels, alone.training) == (None, None, None)


@pytest.mark.parametrize("wrong", [(TEST[0], [1]), TEST[0], (*TEST, None), 3])
@pytest.mark.parametrize("place", ["test", "validation", "train"])
def test_what_is_no_pair_of_one_length_is_named(wrong, place):
    with pytest.raises(UsageError, match=f"^{place} must be a pair"):
        Examples.given(**{"test": TEST, place: wrong})
