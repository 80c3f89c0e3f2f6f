"""Weights of examples: their shapes and values, and their way through splits."""

import re

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.data.arrays import from_arrays, from_pipelines, part_of_test
from lotcal_tf.data.splits import validation_members
from lotcal_tf.data.weights import checked_weights
from lotcal_tf.errors import UsageError

X = np.arange(40, dtype=np.float32).reshape(20, 2)
Y, W = np.arange(20) % 3, np.linspace(0, 2, 20)


def build(kind, w=W, **options):
    options = {"classes": 3, "validation_size": 5, "seed": 1, **options}
    if kind == "arrays":
        return from_arrays((X, Y, w), None, **options)
    data = tf.data.Dataset.from_tensor_slices((X, Y, w))
    limit = 100 if kind == "resident" else 0
    return from_pipelines(data, None, memory_limit_mb=limit, shuffle_buffer=50, **options)


@pytest.mark.parametrize("kind", ["arrays", "resident", "streamed"])
def test_weights_stay_with_their_examples(kind):
    data = build(kind)
    assert data.train.weighted and not data.validation.weighted
    np.testing.assert_allclose(data.train.weights(), W[~validation_members(20, 5, 1)], rtol=1e-6)
    for x, y, w in data.train.shuffled(5, 2, (3, 4)):
        places = x.numpy()[:, 0].astype(int) // 2
        assert np.array_equal(y, Y[places])
        np.testing.assert_allclose(w, W[places], rtol=1e-6)
    assert all(len(block) == 2 for block in data.train.in_order(7))
    other = data.train.relabelled(np.zeros(15, np.int32))
    assert np.array_equal(other.weights(), data.train.weights())


def test_weights_are_part_of_the_digest():
    options = {"identified": True}
    plain = from_arrays((X, Y), None, classes=3, validation_size=5, seed=1, **options).digest
    found = {build(kind, **options).digest for kind in ("arrays", "resident", "streamed")}
    assert len(found) == 1 and plain not in found
    assert build("arrays", W + 1, **options).digest not in found
    assert {build("arrays", seed=2, **options).digest} == found


def test_a_column_is_taken_and_booleans_are_0_and_1():
    assert checked_weights(W[:, None], 20, "train").shape == (20,)
    assert checked_weights([True, False], 2, "train").tolist() == [1, 0]


@pytest.mark.parametrize("w", [W[:-1], np.ones((20, 2))])
def test_weights_of_another_shape_are_refused(w):
    with pytest.raises(UsageError, match=re.escape(f"shape {w.shape}")):
        build("arrays", w)


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_weights_of_another_shape_are_refused_in_a_pipeline(kind):
    with pytest.raises(UsageError, match="weights"):
        build(kind, np.ones((20, 2)))


@pytest.mark.parametrize(
    ("w", "words"),
    [
        (np.where(np.arange(20) == 3, -1, W), "example 3 has the weight -1"),
        (np.where(np.arange(20) == 4, np.inf, W), "example 4 has the weight inf"),
        (np.zeros(20), "all 0"),
        (np.array(["a"] * 20), "numbers"),
    ],
)
@pytest.mark.parametrize("kind", ["arrays", "resident", "streamed"])
def test_wrong_weights_are_refused(w, words, kind):
    with pytest.raises(UsageError, match=words):
        build(kind, w)


def test_only_training_data_has_weights():
    options = {"classes": 3, "validation_size": 5, "seed": 1}
    with pytest.raises(UsageError, match="test has sample weights: only train"):
        from_arrays((X, Y), (X, Y, W), **options)
    with pytest.raises(UsageError, match="validation has sample weights: only train"):
        from_arrays((X, Y), None, (X, Y, W), **options)
    stream = tf.data.Dataset.from_tensor_slices((X, Y, W))
    with pytest.raises(UsageError, match="test has sample weights"):
        part_of_test(stream, classes=3)
