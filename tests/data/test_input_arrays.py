"""Inputs are kept as bytes, float32 or the integers that the model declares."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.data.input_arrays import checked_inputs, kept_tensors
from lotcal_tf.errors import UsageError


def takes(dtype):
    return {"x": tf.TensorSpec([None, 2], dtype, "x")}


@pytest.mark.parametrize(
    ("given", "declared", "kept"),
    [
        ("uint8", "float32", "uint8"),
        ("int64", "float32", "float32"),
        ("float64", "float32", "float32"),
        ("int64", "int32", "int32"),
        ("float32", "int64", "int64"),
        ("uint8", "int32", "uint8"),
        ("bool", "bool", "bool"),
        ("int64", "bool", "bool"),
    ],
)
def test_types(given, declared, kept):
    x = np.array([[0, 1], [1, 1]], given)
    found = checked_inputs(x, "train", takes(declared))
    assert found.dtype == kept and np.array_equal(found, x)
    stream = kept_tensors(tf.constant(x), takes(declared))
    assert stream.dtype == kept and np.array_equal(stream, x)


@pytest.mark.parametrize(
    ("x", "declared", "words"),
    [
        ([[1, 2], [3, 2.5]], "int32", r"hold 2.5, first in example 8: .* int32"),
        ([[1, 2], [3, 2**40]], "int32", "example 8: .* int32"),
        ([[1, -1], [3, 2]], "uint8", "-1, first in example 7: .* from 0 to 255"),
        ([[1, np.nan]], "int64", "nan, first in example 7"),
        ([[1, 2]], "bool", "from 0 to 1"),
        ([["a", "b"]], "int32", "numbers are needed"),
        ([[True, False]], "float32", "of type bool: numbers"),
    ],
)
def test_values_that_the_model_cannot_take_are_refused(x, declared, words):
    with pytest.raises(UsageError, match=words):
        checked_inputs(np.array(x), "train", takes(declared), first=7)


def test_inputs_of_unequal_lengths_are_refused():
    both = takes("int32") | {"y": tf.TensorSpec([None], tf.float32, "y")}
    with pytest.raises(UsageError, match=r"number of examples: x: 3, y: 2"):
        checked_inputs({"x": np.ones((3, 2)), "y": np.ones(2)}, "train", both)
