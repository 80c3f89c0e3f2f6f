"""One step of `none` against the same step worked out in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.calibration.strategies import CrossEntropy
from lotcal_tf.compat import keras

RATE, DECAY = 0.3, 0.05


@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_a_step_is_the_step_of_mean_cross_entropy_and_penalties(decay):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 4)), rng.integers(0, 3, 8)
    inputs = keras.Input((4,))
    dense = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(decay))
    strategy = CrossEntropy(keras.Model(inputs, dense(inputs)))
    strategy.compile(optimizer=keras.optimizers.SGD(RATE))
    kernel, bias = rng.normal(size=(4, 3)), rng.normal(size=3)
    dense.set_weights([kernel, bias])

    logs = strategy.train_step((tf.constant(x, tf.float32), tf.constant(y)))

    z = x @ kernel + bias
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    loss = -np.log(p[np.arange(8), y]).mean() + decay * np.square(kernel).sum()
    residual = (p - np.eye(3)[y]) / 8
    assert float(logs["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(logs["accuracy"]) == (z.argmax(1) == y).mean()
    moved = kernel - RATE * (x.T @ residual + 2 * decay * kernel)
    np.testing.assert_allclose(dense.kernel, moved, atol=1e-6)
    np.testing.assert_allclose(dense.bias, bias - RATE * residual.sum(0), atol=1e-6)


def test_the_network_is_called_in_training():
    inputs = keras.Input((2,))
    norm = keras.layers.BatchNormalization(momentum=0.0)
    strategy = CrossEntropy(keras.Model(inputs, norm(inputs)))
    strategy.compile(optimizer=keras.optimizers.SGD(0.0))
    strategy.train_step((tf.constant([[1.0, 4.0], [3.0, 0.0]]), tf.constant([0, 1])))
    np.testing.assert_allclose(norm.moving_mean, [2.0, 2.0])  # the batch's, as momentum is 0
