"""Examples of an export: the test split to compare on, validation and training data to quantise with."""

import numpy as np
import pytest
import tensorflow as tf

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
    assert examples.inputs.dtype == np.uint8  # as in the data; what runs a model casts them
    assert np.array_equal(examples.inputs, TEST[0]) and np.array_equal(examples.labels, TEST[1])
    material = examples.material
    assert np.array_equal(material.validation, VALIDATION[0])
    assert np.array_equal(material.labels, VALIDATION[1])
    assert (material.training.count, material.seed) == (30, 7)
    assert (examples.data, examples.of_run, examples.classes) == (None, False, 3)
    named = Examples.of(dataset(TRAIN, VALIDATION, TEST), data="bytes", of_run=True)
    assert (named.data, named.of_run) == ("bytes", True)


def test_without_a_test_split_they_are_compared_on_validation_and_say_so(dataset):
    examples = Examples.of(dataset(TRAIN, VALIDATION, None))
    assert examples.split == "val"
    assert np.array_equal(examples.inputs, VALIDATION[0])


@pytest.mark.parametrize("kind", ["arrays", "pipelines"])
def test_arrays_and_pipelines_are_taken(kind):
    def given(*pairs):
        if kind == "pipelines":
            pairs = [tf.data.Dataset.from_tensor_slices(pair) for pair in pairs]
        return Examples.given(*pairs, classes=3)

    examples = given(TEST, VALIDATION, TRAIN)
    assert (examples.split, examples.inputs.dtype) == ("test", np.uint8)
    assert np.array_equal(examples.inputs, TEST[0]) and np.array_equal(examples.labels, TEST[1])
    assert np.array_equal(examples.material.validation, VALIDATION[0])
    assert np.array_equal(examples.material.labels, VALIDATION[1])
    assert examples.material.training.count == 30
    alone = given(TEST).material
    assert (alone.validation, alone.labels, alone.training) == (None, None, None)


@pytest.mark.parametrize(
    "form", [lambda y: y[:, None], lambda y: y.astype(float), np.eye(3).__getitem__]
)
def test_labels_may_have_the_forms_that_training_takes(form):
    inputs, labels = TEST
    assert np.array_equal(Examples.given((inputs, form(labels)), classes=3).labels, labels)


def test_a_batched_pipeline_is_split_into_examples():
    batches = tf.data.Dataset.from_tensor_slices(TEST).batch(4)
    takes = {"x": tf.TensorSpec((None, 2))}
    examples = Examples.given(batches, classes=3, takes=takes)
    assert np.array_equal(examples.inputs, TEST[0]) and np.array_equal(examples.labels, TEST[1])


INPUTS, LABELS = TEST


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (INPUTS, "without labels: a pair .*or a tf.data pipeline"),
        ((*TEST, None), r"has sample weights.*pass \(inputs, labels\)"),
        (3, "of type int: a pair"),
        ((INPUTS, [1]), "has 10 inputs and 1 labels"),
        ((INPUTS[:0], LABELS[:0]), "is empty"),
        ((INPUTS, LABELS + 1), "has a label 3.*0 … 2"),
        ((INPUTS, LABELS - 1), "has a label -1.*0 … 2"),
        ((INPUTS, np.eye(5)[LABELS]), r"labels have shape \(10, 5\)"),
        ((INPUTS + np.float32(np.nan), LABELS), "NaN or infinity"),
        (tf.data.Dataset.from_tensor_slices((INPUTS, LABELS + 1)), "has a label 3.*0 … 2"),
        (tf.data.Dataset.from_tensor_slices(TEST).batch(2).batch(2), "single or in batches"),
        (tf.data.Dataset.from_tensor_slices(TEST).take(0), "is empty"),
    ],
)
@pytest.mark.parametrize("place", ["test", "validation", "train"])
def test_invalid_data_is_refused(wrong, message, place):
    with pytest.raises(UsageError, match=rf"{place}.*{message}") as caught:
        Examples.given(**{"test": TEST, place: wrong}, classes=3)
    assert "\n" not in str(caught.value)
