"""BatchNorm for several devices, on one: there it must be Keras's own, forward, back and kept.

That several devices give what one gives is a test of the distribution.
"""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.training.distributed.batch_norm import SynchronisedBatchNorm, synchronise

SETTINGS = {"momentum": 0.7, "epsilon": 0.01, "name": "norm"}


def model(shape, **settings):
    inputs = keras.Input(shape)
    normalised = keras.layers.BatchNormalization(**(SETTINGS | settings))(inputs)
    return keras.Model(inputs, normalised)


def stepped(network, x):
    """Output, gradient of the input and moving averages after one step of training."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = network(x, training=True)
        loss = tf.reduce_sum(y * tf.sin(7 * x))
    gradients = tape.gradient(loss, [x, *network.trainable_variables])
    return [y, *gradients, *network.non_trainable_variables, network(x, training=False)]


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((5,), {}),  # Keras keeps the n variance after dense layers,
        ((4, 4, 3), {}),  # and the n − 1 variance after convolutions
        ((4, 4, 3), {"scale": False}),
        ((4, 4, 3), {"center": False}),
        ((4, 3), {"axis": 1}),
        ((4, 3), {"axis": [1, 2]}),
    ],
)
def test_on_one_device_it_is_kerass(shape, settings):
    plain = model(shape, **settings)
    rng = np.random.default_rng(0)
    plain.set_weights([rng.uniform(0.5, 2, w.shape) for w in plain.get_weights()])
    copy = synchronise(plain)
    assert [type(layer) for layer in copy.layers[1:]] == [SynchronisedBatchNorm]
    assert [w.name for w in copy.weights] == [w.name for w in plain.weights]
    copy.set_weights(plain.get_weights())
    x = tf.constant(rng.normal(3, 2, (6, *shape)), tf.float32)
    for found, expected in zip(stepped(copy, x), stepped(plain, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


def test_a_mean_far_from_zero_costs_no_digits():
    """As E[x²] − E[x]², which Keras's `synchronized` takes, 1.25 is lost in float32."""
    network = synchronise(model((1,)))
    network(tf.constant([[3000.0], [3001.0], [3002.0], [3003.0]]), training=True)
    mean, variance = (weight.numpy()[0] for weight in network.non_trainable_variables)
    assert mean == pytest.approx(0.3 * 3001.5, rel=1e-6)
    assert variance == pytest.approx(0.7 * 1 + 0.3 * 1.25, rel=1e-6)


def test_a_frozen_layer_stays_as_it_is():
    network = synchronise(model((2,)))
    network.layers[1].trainable = False
    x = tf.constant([[1.0, 2.0], [5.0, 9.0]])
    np.testing.assert_allclose(network(x, training=True), x / np.sqrt(1.01), rtol=1e-6)
    assert all(
        (w.numpy() == start).all() for w, start in zip(network.weights[2:], (0, 1), strict=True)
    )


def test_its_configuration_makes_it_again():
    layer = synchronise(model((4, 4, 3))).layers[1]
    again = SynchronisedBatchNorm.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (again.unbiased, again.momentum) == (True, 0.7)


def test_what_cannot_be_reached_is_refused():
    inputs = keras.Input((4, 3))
    inner = keras.layers.TimeDistributed(keras.layers.BatchNormalization(), name="each")
    with pytest.raises(UsageError, match=r"layer 'each' .* distribute=none"):
        synchronise(keras.Model(inputs, inner(inputs)))


def test_masked_time_steps_are_refused():
    inputs = keras.Input((4, 3))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Masking()(inputs))
    with pytest.raises(UsageError, match=r"layer 'norm' .* distribute=none"):
        synchronise(keras.Model(inputs, x))(tf.ones([2, 4, 3]), training=True)
