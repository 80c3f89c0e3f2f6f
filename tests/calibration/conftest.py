"""What the twins of the strategies share: a network in a strategy, and one step of it compared with its loss."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.models.stateless_dropout import StatelessDropout
from lotcal_tf.seeds import step_seed

RNG = np.random.default_rng(8)
INPUTS, LABELS = RNG.normal(size=(12, 5)).astype("float32"), RNG.integers(0, 3, 12)
DECAY, RATE = 0.05, 0.1


@pytest.fixture
def make_strategy():
    """make_strategy(class, **hyperparameters) → one around a network with L2 decay and dropout."""

    def make(kind, **hyperparameters):
        keras.utils.set_random_seed(3)
        inputs = keras.Input((5,))
        x = keras.layers.Dense(6, activation="relu", name="hidden")(inputs)
        # Plain layers of the same place draw nothing: only a stochastic strategy is random.
        x = StatelessDropout(0.4 if "passes" in hyperparameters else 0.0, name="drop")(x)
        decay = keras.regularizers.L2(DECAY)
        logits = keras.layers.Dense(3, kernel_regularizer=decay, name="logits")(x)
        strategy = kind(keras.Model(inputs, logits), **hyperparameters)
        strategy.compile(optimizer=keras.optimizers.SGD(RATE))
        return strategy

    return make


@pytest.fixture
def minimises():
    """minimises(strategy, loss, …) → what a step logs; asserts that it descends on the loss and the L2 penalty.

    `loss(labels, logits)` is the oracle, of the logits that the step itself sees. `seen` are the inputs and
    labels of a step that changes those of the data.
    """

    def check(strategy, loss, seed=(1, 2), data=(INPUTS, LABELS), seen=None):
        inputs, labels = seen or data[:2]
        variables = strategy.network.trainable_variables
        with step_seed(tf.constant(seed, tf.int32)), tf.GradientTape() as tape:
            stochastic = hasattr(strategy.hyper, "passes")
            call = strategy.stochastic if stochastic else strategy
            logits = call(inputs) if stochastic else call(inputs, training=True)
            kernel = strategy.network.get_layer("logits").kernel
            whole = tf.reduce_mean(loss(labels, logits)) + DECAY * tf.reduce_sum(kernel**2)
        gradients = tape.gradient(whole, variables)
        wanted = [v.numpy() - RATE * g.numpy() for v, g in zip(variables, gradients, strict=True)]
        with step_seed(tf.constant(seed, tf.int32)):
            logs = strategy.train_step(tuple(map(tf.constant, data)))
        assert float(logs["loss"]) == pytest.approx(float(whole), rel=1e-5)
        for variable, after in zip(variables, wanted, strict=True):
            np.testing.assert_allclose(variable.numpy(), after, atol=1e-6, err_msg=variable.name)
        return logs, logits.numpy()

    return check
