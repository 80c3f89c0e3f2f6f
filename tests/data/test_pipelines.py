"""Pipelines: batches are told from single examples by shapes, and two readings are compared."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.data.pipelines import Readings, unbatched
from lotcal_tf.errors import UsageError


def pipeline(inputs, labels):
    """A pipeline that claims to give tensors of these shapes; nothing is read."""
    signature = tf.TensorSpec(inputs), tf.TensorSpec(labels, tf.int32)
    return tf.data.Dataset.from_generator(lambda: [], output_signature=signature)


def verdict(inputs, labels, shape, classes=3):
    try:
        takes = None if shape is None else {"x": tf.TensorSpec((None, *shape))}
        found = unbatched(pipeline(inputs, labels), "train", classes, takes)
    except UsageError as error:
        return "either" if "can be a batch" in str(error) else "refused"
    return "single" if tuple(found.element_spec[0].shape) == tuple(inputs) else "batch"


@pytest.mark.parametrize(
    ("inputs", "labels", "by_model", "alone"),
    # Of a model that takes (4,), and without a model. By the shapes alone, the rank of an input is open.
    [
        ((4,), (), "single", "single"),
        ((4,), (1,), "single", "single"),
        ((4,), (3,), "single", "single"),
        ((4,), (4,), "refused", "batch"),  # of four scalars
        ((3,), (3,), "single", "either"),
        ((None, 4), (None,), "batch", "batch"),
        ((None, 4), (None, 1), "batch", "batch"),
        ((None, 4), (None, 3), "batch", "batch"),
        ((None, 4), (None, 5), "refused", "refused"),
        ((5, 4), (5,), "batch", "batch"),
        ((3, 4), (3,), "batch", "either"),
        ((1, 4), (1,), "batch", "either"),
        ((3, 4), (3, 3), "batch", "batch"),
        ((2, 4), (3,), "refused", "single"),
        ((2, None, 4), (2, None), "refused", "refused"),
        ((None, None, 4), (None, None), "refused", "refused"),
        ((None, 4), (None, None), "refused", "refused"),
        ((None,), (), "refused", "refused"),
        ((4,), (None,), "refused", "refused"),
    ],
)
def test_shapes_tell_batches_from_single_examples(inputs, labels, by_model, alone):
    assert verdict(inputs, labels, (4,)) == by_model
    assert verdict(inputs, labels, (None,)) == by_model
    assert verdict(inputs, labels, None) == alone


X, Y = np.arange(40.0).reshape(20, 2), np.arange(20)


def blocks(order, size=5):
    order = np.array(order, int)
    return [(X[order[i : i + size]], Y[order[i : i + size]]) for i in range(0, len(order), size)]


def compared(first, second, whole):
    """None where two readings are taken as equal, else how they differ."""
    readings = Readings()
    for block in blocks(first):
        readings.add(block)
    try:
        readings.check(iter(blocks(second)), "test", whole)
    except UsageError as error:
        return next(w for w in ("another order", "other examples", "empty") if w in str(error))
    return None


SWAPPED_LATE = [*range(18), 19, 18]


@pytest.mark.parametrize(
    ("second", "by_block", "whole"),
    [
        (range(20), None, None),
        ([1, 0, *range(2, 20)], "another order", "another order"),
        (SWAPPED_LATE, None, "another order"),
        (range(15), None, "other examples"),
        ([*range(20), 3], None, "other examples"),
        ([0, 0, *range(2, 20)], "other examples", "other examples"),
        ([], "empty", "empty"),
    ],
)
def test_two_readings_are_compared_in_their_first_block_or_as_a_whole(second, by_block, whole):
    assert compared(range(20), second, False) == by_block
    assert compared(range(20), second, True) == whole


def test_readings_see_labels_and_inputs():
    for changed_x, changed_y in itertools.product((0, 1), (0, 1)):
        readings = Readings()
        readings.add((X, Y))
        again = [(X + changed_x, Y + changed_y)]
        if changed_x or changed_y:
            with pytest.raises(UsageError, match="^the val pipeline held other examples"):
                readings.check(again, "val", False)
        else:
            readings.check(again, "val", False)
