"""Labels of every form become class numbers, in arrays and in streams alike."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.data.labels import class_number, class_numbers
from lotcal_tf.errors import UsageError

LABELS = np.array([2, 0, 1, 1, 2])
FORMS = {
    "numbers": LABELS,
    "bytes": LABELS.astype(np.uint8),
    "floats": LABELS.astype(np.float16),
    "column": LABELS[:, None],
    "column of floats": LABELS[:, None].astype(float),
    "one-hot": np.eye(3)[LABELS],
    "one-hot integers": np.eye(3, dtype=np.int8)[LABELS],
    "one-hot booleans": np.eye(3, dtype=bool)[LABELS],
}


@pytest.mark.parametrize("labels", FORMS.values(), ids=FORMS)
def test_all_forms_become_numbers(labels):
    found = class_numbers(labels, "train", 3)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, LABELS)
    streamed = tf.data.Dataset.from_tensor_slices(labels).map(class_number)
    assert streamed.element_spec == tf.TensorSpec([], tf.int32)
    np.testing.assert_array_equal(list(streamed.as_numpy_iterator()), LABELS)


def test_booleans_are_two_classes():
    found = class_numbers(np.array([True, False]), "train", 2)
    assert (found.dtype, found.tolist()) == (np.int32, [1, 0])


@pytest.mark.parametrize("first", [0, 3000])
def test_the_first_label_that_is_not_one_hot_is_counted_from_the_start(first):
    labels = np.eye(3)[LABELS]
    for row in ([0, 0, 0], [1, 1, 0], [0, 2, 0], [0.5, 0.5, 0], [np.nan, 0, 1], [-1, 1, 1]):
        labels[3] = row
        with pytest.raises(UsageError, match=f"val .*not one-hot.* example {first + 3}:"):
            class_numbers(labels, "val", 3, first)


@pytest.mark.parametrize(
    ("labels", "hint"),
    [([1, 2, 3], True), ([1, 3, 3], True), ([0, 3], False), ([1, 4], False), ([-1, 3], False)],
)
def test_counting_from_one_is_suggested_only_where_it_may_be(labels, hint):
    with pytest.raises(UsageError, match="labels must be 0 … 2") as error:
        class_numbers(np.array(labels), "train", 3)
    assert ("count from 1" in str(error.value)) == hint
