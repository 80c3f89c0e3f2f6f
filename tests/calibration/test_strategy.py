"""What the base of all strategies does for them: casting, penalties, the step, what is logged."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.calibration.losses import cross_entropy
from lotcal_tf.calibration.strategy import Strategy
from lotcal_tf.compat import keras

INPUTS = tf.constant([[1.0, 2.0], [-1.0, 0.5], [0.0, -2.0], [3.0, 1.0]])
LABELS = tf.constant([0, 2, 1, 1])


def make_network(**dense):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.layers.Dense(3, name="logits", **dense)(inputs))


def descend(strategy, labels=LABELS):
    """One step of plain descent with rate 1: weights move by minus their gradient."""
    strategy.compile(optimizer=keras.optimizers.SGD(1.0))
    with tf.GradientTape() as tape:
        logits = strategy(INPUTS, training=True)
        loss = tf.reduce_sum(tf.square(logits)) / 8
    return strategy.descend(tape, loss, labels, logits), loss


def test_train_step_must_be_overridden():
    class Idle(Strategy):
        pass

    with pytest.raises(TypeError, match="Idle must override train_step"):
        Idle(make_network()).train_step((INPUTS, LABELS))


def test_calling_gives_the_networks_logits_in_float32():
    network = make_network(dtype="float16")
    logits = Strategy(network)(INPUTS)
    assert (network(INPUTS).dtype, logits.dtype) == (tf.float16, tf.float32)
    np.testing.assert_array_equal(logits, network(INPUTS))


@pytest.mark.parametrize("training", [True, False])
def test_calling_passes_training_on(training):
    inputs = keras.Input((2,))
    network = keras.Model(inputs, keras.layers.BatchNormalization()(inputs))
    moving = network.layers[-1].moving_mean
    Strategy(network)(INPUTS, training=training)
    assert bool(np.any(moving.numpy() != 0)) == training


def test_descend_steps_down_the_gradient():
    network = make_network()
    kernel, bias = (weight.numpy() for weight in network.trainable_variables)
    logits = INPUTS.numpy() @ kernel + bias
    descend(Strategy(network))
    # loss Σ z² / 8: its gradient is z / 4 in the logits, xᵀz / 4 in the kernel.
    after_kernel, after_bias = (weight.numpy() for weight in network.trainable_variables)
    np.testing.assert_allclose(after_kernel, kernel - INPUTS.numpy().T @ logits / 4, atol=1e-6)
    np.testing.assert_allclose(after_bias, bias - logits.sum(0) / 4, atol=1e-6)


@pytest.mark.parametrize("one_hot", [False, True])
def test_descend_logs_the_batch_before_the_step(one_hot):
    network = make_network()
    predicted = network(INPUTS).numpy().argmax(1)
    labels = predicted.copy()
    labels[1] = (labels[1] + 1) % 3  # three of four right
    if one_hot:
        # Mixed labels count as the class of the larger share.
        labels = 0.7 * np.eye(3)[labels] + 0.3 * np.eye(3)[(labels + 1) % 3]
    logs, loss = descend(Strategy(network), tf.constant(labels))
    assert float(logs["accuracy"]) == 0.75
    assert float(logs["loss"]) == float(loss)
    assert tuple(logs) == Strategy.log_names


def test_descend_leaves_what_is_not_trainable():
    inputs = keras.Input((2,))
    hidden = keras.layers.Dense(2, trainable=False)(inputs)
    network = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    frozen = [weight.numpy() for weight in network.layers[1].weights]
    descend(Strategy(network))
    for weight, before in zip(network.layers[1].weights, frozen, strict=True):
        np.testing.assert_array_equal(weight, before)


def test_the_penalty_is_the_sum_of_the_regularisers():
    assert float(Strategy(make_network()).penalty()) == 0.0
    decayed = make_network(
        kernel_regularizer=keras.regularizers.L2(0.5), bias_regularizer=keras.regularizers.L1(2.0)
    )
    kernel, bias = decayed.trainable_variables
    bias.assign([1.0, -2.0, 0.5])
    expected = 0.5 * np.square(kernel.numpy()).sum() + 2.0 * 3.5
    assert float(Strategy(decayed).penalty()) == pytest.approx(expected, rel=1e-6)


def test_a_strategy_of_ones_own_overrides_train_step_alone():
    class Doubled(Strategy):
        log_names = ("loss", "accuracy", "plain")

        def train_step(self, data):
            inputs, labels = data
            with tf.GradientTape() as tape:
                logits = self(inputs, training=True)
                plain = tf.reduce_mean(cross_entropy(labels, logits))
                loss = 2 * plain
            return self.descend(tape, loss, labels, logits) | {"plain": plain}

    strategy = Doubled(make_network())
    strategy.compile(optimizer=keras.optimizers.SGD(0.1))
    logs = strategy.train_step((INPUTS, LABELS))
    assert set(logs) == set(Doubled.log_names)
    assert float(logs["loss"]) == 2 * float(logs["plain"])
