"""The masking layer by itself: product, gradient, configuration, and what it cannot wrap."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.pruning.masked import Masked, is_kernel, is_prunable, refuse_unknown

layers = keras.layers


class Strange(layers.Layer):
    """A custom layer that does not say whether its kernel is prunable."""

    def build(self, shape):
        self.kernel = self.add_weight("kernel", (shape[-1], 3))

    def call(self, x):
        return x @ self.kernel


def test_output_and_gradient_are_those_of_weights_times_mask():
    layer = Masked(layers.Dense(2, use_bias=False))
    x = tf.constant([[1.0, 2.0, 3.0], [-1.0, 0.5, 4.0]])
    layer(x)
    kernel = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "float32")
    mask = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], "float32")
    layer.prunable_weights[0].assign(kernel)
    assert np.array_equal(layer.masks[0], np.ones((3, 2)))
    layer.masks[0].assign(mask)
    with tf.GradientTape() as tape:
        found = layer(x)
    # By hand: 1*1 + 3*5, 2*4 + 3*6; -1*1 + 4*5, 0.5*4 + 4*6.
    assert np.array_equal(found, [[16, 26], [19, 26]])
    (gradient,) = tape.gradient(found, layer.trainable_weights)
    # Of the sum: each input's column sum (0, 2.5, 7), where the mask is 1.
    assert np.array_equal(gradient, [[0, 0], [0, 2.5], [7, 7]])


def test_what_is_prunable_and_what_nobody_knows():
    assert is_prunable(layers.Dense(2)) and is_prunable(layers.LSTM(2))
    assert not is_prunable(layers.Flatten()) and not is_prunable(layers.BatchNormalization())
    refuse_unknown(layers.BatchNormalization())
    strange = Strange(name="mine")
    strange(tf.ones((1, 2)))
    assert not is_prunable(strange)
    with pytest.raises(UsageError, match=r"'mine' \(Strange\) holds .*exclude=mine"):
        refuse_unknown(strange)
    # Inside a wrapper of Keras, too, which is excluded as a whole.
    wrapped = layers.TimeDistributed(strange, name="each")
    with pytest.raises(UsageError, match=r"'each' .*'mine' \(Strange\).*exclude=each"):
        refuse_unknown(wrapped)


@pytest.mark.parametrize(
    ("layer", "kernels"),
    [
        (layers.PReLU(), 0),
        (layers.LayerNormalization(axis=(1, 2, 3)), 0),
        (layers.Normalization(mean=0.0, variance=1.0), 0),
        (layers.BatchNormalization(axis=(1, 3)), 0),
        (layers.Conv2D(2, 3), 1),
        (layers.SeparableConv2D(2, 3), 2),
        (layers.LocallyConnected2D(2, 3), 1),
    ],
)
def test_slopes_scales_and_statistics_are_no_kernels(layer, kernels):
    layer(tf.ones((1, 6, 6, 4)))
    assert sum(is_kernel(weight.name, weight) for weight in layer.weights) == kernels


def test_get_config_holds_every_argument_and_round_trips():
    layer = Masked(layers.Dense(3, name="d"), name="mine", trainable=False)
    again = Masked.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (again.name, again.trainable, again.layer.units) == ("mine", False, 3)
    layer.build((None, 2))
    again = Masked.from_config(layer.get_config())
    assert again.get_config()["mask_shapes"] == layer.get_config()["mask_shapes"] == [[2, 3]]
    assert Masked(layers.Dense(3, name="d")).name == "masked_d"


def test_only_a_layer_with_prunable_weights_can_be_masked():
    for layer in (layers.Flatten(name="d"), layers.DepthwiseConv2D(2, name="d")):
        with pytest.raises(UsageError, match=r"'d' .* has no prunable weights"):
            Masked(layer)


def test_after_an_error_the_layer_has_its_own_weight_back():
    layer = Masked(layers.Dense(3))
    layer(tf.ones((2, 4)))
    kernel = layer.prunable_weights[0]
    with pytest.raises(ValueError, match="expected axis -1"):
        layer(tf.ones((2, 5)))
    assert layer.layer.kernel is kernel
