"""Losses against NumPy in float64, figures worked out by hand, and finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.calibration.losses import cross_entropy


def oracle(labels, logits):
    """−log softmax in float64, by its definition with the highest logit taken out."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    return np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]


def with_gradient(labels, logits):
    """The losses, and each one's gradient by its own logits."""
    logits = tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = cross_entropy(tf.constant(labels), logits)
    return losses.numpy(), tape.gradient(losses, logits).numpy()


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 1e4])
def test_random_logits(classes, scale):
    rng = np.random.default_rng([classes, int(scale)])
    logits = (rng.normal(size=(200, classes)) * scale).astype(np.float32)
    labels = rng.integers(0, classes, 200)
    losses = cross_entropy(tf.constant(labels), tf.constant(logits))
    assert (losses.shape, losses.dtype) == ((200,), tf.float32)
    np.testing.assert_allclose(losses, oracle(labels, logits), rtol=3e-6, atol=1e-6)


BY_HAND = {
    "half": (0, [0.0, 0.0], np.log(2)),
    "a quarter": (1, np.log([0.5, 0.25, 0.25]), np.log(4)),
    "shifted": (1, np.log([0.5, 0.25, 0.25]) + 70, np.log(4)),
    "three alike": (2, [5.0, 5.0, 5.0], np.log(3)),
    "two alike on top": (0, [1e4, 1e4, -1e4], np.log(2)),
    "all at the top": (0, [1e4, 1e4, 1e4, 1e4], np.log(4)),
    "all at the bottom": (3, [-1e4, -1e4, -1e4, -1e4], np.log(4)),
    "sure and right": (0, [1e4, -1e4], 0.0),
    "sure and wrong": (1, [1e4, -1e4], 2e4),
}


@pytest.mark.parametrize(("label", "logits", "loss"), BY_HAND.values(), ids=BY_HAND)
def test_by_hand(label, logits, loss):
    (found,), (gradient,) = with_gradient([label], [logits])
    assert found == pytest.approx(loss, rel=1e-6, abs=1e-7)
    p = np.exp(np.float64(logits) - np.max(logits))
    expected = p / p.sum() - np.eye(len(logits))[label]
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_gradients_by_finite_differences():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20, 5)) * 3
    labels = rng.integers(0, 5, 20)
    step = 1e-6
    differences = np.zeros_like(logits)
    for place in np.ndindex(logits.shape):
        for side in (step, -step):
            moved = logits.copy()
            moved[place] += side
            differences[place] += oracle(labels, moved)[place[0]] / (2 * side)
    _, gradient = with_gradient(labels, logits)
    np.testing.assert_allclose(gradient, differences, atol=1e-6)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_other_types_are_computed_in_float32(dtype):
    logits = tf.constant([[1.0, 3.0, 0.5], [2.0, -1.0, 0.0]], dtype)  # exact in each of them
    losses = cross_entropy(tf.constant([0, 1]), logits)
    assert losses.dtype == tf.float32
    np.testing.assert_allclose(losses, oracle([0, 1], logits.numpy()), rtol=1e-6)
