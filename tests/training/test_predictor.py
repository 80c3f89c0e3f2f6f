"""Predictions of whole splits: in blocks, padded, and with several passes."""

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.data.splits import ResidentSplit
from lotcal_tf.models.stateless_dropout import replace_dropout
from lotcal_tf.training import predictor
from lotcal_tf.training.predictor import Predictor


@pytest.fixture(scope="module")
def network():
    """Two inputs, which blocks must divide alike."""
    keras.utils.set_random_seed(2)
    image, row = keras.Input((2, 3, 1), name="image"), keras.Input((4,), name="row")
    x = keras.layers.Concatenate()([keras.layers.Flatten()(image), row])
    x = keras.layers.Dropout(0.5)(keras.layers.Dense(5, activation="relu")(x))
    return replace_dropout(keras.Model({"image": image, "row": row}, keras.layers.Dense(3)(x)))


def split_of(count):
    draw = np.random.default_rng(count)
    inputs = {
        "image": draw.normal(size=(count, 2, 3, 1)).astype("float32"),
        "row": draw.normal(size=(count, 4)).astype("float32"),
    }
    return ResidentSplit.of(inputs, draw.integers(0, 3, count))


# Batches of 8 in two blocks of 4; 3 and 5 examples are left, which are padded to 4 and 8.
@pytest.mark.parametrize("count", [8, 19, 21, 5, 1])
@pytest.mark.parametrize("plan", ["xla", "graph"])
def test_logits_are_those_of_the_network_in_the_order_of_the_split(
    network, count, plan, monkeypatch
):
    monkeypatch.setattr(predictor, "BLOCK_EXAMPLES", 4)
    split = split_of(count)
    labels, logits = Predictor(network, plan, batch_size=8)(split)
    np.testing.assert_array_equal(labels, split.labels.numpy())
    expected = network(split.inputs, training=False).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_the_masks_of_passes_do_not_depend_on_blocks(network, monkeypatch):
    split = split_of(8)
    whole = Predictor(network, "xla", passes=3, batch_size=8)(split)[1]
    monkeypatch.setattr(predictor, "BLOCK_EXAMPLES", 4)
    np.testing.assert_array_equal(
        Predictor(network, "xla", passes=3, batch_size=8)(split)[1], whole
    )
    assert not np.array_equal(whole, Predictor(network, "xla", passes=2, batch_size=8)(split)[1])


def test_batches_are_given_one_by_one(network):
    found = [
        logits.shape
        for _, logits in Predictor(network, "graph", batch_size=8).batches(split_of(19))
    ]
    assert found == [(8, 3), (8, 3), (3, 3)]
