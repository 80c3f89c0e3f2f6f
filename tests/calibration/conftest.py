"""What the twins of the strategies share: a network in a strategy, and one step of it."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.models.stateless_dropout import StatelessDropout
from lotcal_tf.seeds import step_seed

RNG = np.random.default_rng(8)
INPUTS, LABELS = RNG.normal(size=(12, 5)).astype("float32"), RNG.integers(0, 3, 12)
DECAY = 0.05


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
        strategy.compile(optimizer=keras.optimizers.SGD(0.1))
        return strategy

    return make


@pytest.fixture
def step():
    """step(strategy) → what a step logs, what it saw: (logs, labels, logits, the L2 penalty)."""

    def take(strategy, seed=(1, 2)):
        seed = tf.constant(seed, tf.int32)
        with step_seed(seed):
            stochastic = hasattr(strategy.hyper, "passes")
            logits = strategy.stochastic(INPUTS) if stochastic else strategy(INPUTS, training=True)
        kernel = strategy.network.get_layer("logits").kernel.numpy()
        with step_seed(seed):
            logs = strategy.train_step((tf.constant(INPUTS), tf.constant(LABELS)))
        return logs, LABELS, logits, DECAY * np.square(kernel).sum()

    return take
