"""What is known of layers: each kind, what makes one unknown, and weights by hand."""

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.models.stateless_dropout import StatelessDropout
from lotcal_tf.pruning import channels

L = keras.layers
IMAGE, ROW = (8, 8, 4), (6,)


def kind(layer, *shapes):
    inputs = [keras.Input(shape) for shape in shapes]
    layer(inputs if len(inputs) > 1 else inputs[0])
    return channels.kind_of(layer, inputs)


@pytest.mark.parametrize(
    ("layer", "shapes", "known"),
    [
        (lambda: L.Dense(3, "relu"), [ROW], "linear"),
        (lambda: L.Dense(3, "softmax"), [ROW], "opaque"),
        (lambda: L.Conv2D(3, 3), [IMAGE], "linear"),
        (lambda: L.Conv2D(4, 3, groups=2), [IMAGE], "opaque"),
        (lambda: L.DepthwiseConv2D(3), [IMAGE], "depthwise"),
        (lambda: L.DepthwiseConv2D(3, depth_multiplier=2), [IMAGE], "opaque"),
        (lambda: L.BatchNormalization(), [IMAGE], "batch_norm"),
        (lambda: L.BatchNormalization(axis=1), [IMAGE], "opaque"),
        (lambda: L.ReLU(), [IMAGE], "elementwise"),
        (lambda: L.PReLU(), [IMAGE], "opaque"),
        (lambda: L.Activation("softmax"), [ROW], "opaque"),
        (lambda: L.Rescaling(1 / 255), [IMAGE], "elementwise"),
        (lambda: L.Rescaling([1.0] * 4, [0.5] * 4), [IMAGE], "opaque"),
        (lambda: L.MaxPooling2D(padding="same"), [IMAGE], "constant_keeping"),
        (lambda: L.MaxPooling2D(data_format="channels_first"), [IMAGE], "opaque"),
        (lambda: L.GaussianNoise(0.1), [IMAGE], "constant_keeping"),
        (lambda: StatelessDropout(0.1), [IMAGE], "constant_keeping"),
        (lambda: L.ZeroPadding2D(), [IMAGE], "zero_keeping"),
        (lambda: L.Flatten(), [IMAGE], "flatten"),
        (lambda: L.Add(), [ROW, ROW], "merge"),
        (lambda: L.Add(), [IMAGE, (1, 1, 4)], "opaque"),
        (lambda: L.Concatenate(), [IMAGE, IMAGE], "concatenate"),
        (lambda: L.Concatenate(axis=1), [IMAGE, IMAGE], "opaque"),
        (lambda: L.LayerNormalization(), [ROW], "opaque"),
    ],
)
def test_the_kind_of_a_layer(layer, shapes, known):
    assert kind(layer(), *shapes) == known


def test_constants_that_a_bias_can_stand_for():
    constant = np.array([np.nan, 0.0, 2.0])
    given = {"filters": 1, "kernel_size": 3}
    assert channels.foldable(L.Conv2D(**given), constant).tolist() == [False, True, True]
    padded = L.Conv2D(**given, padding="same")
    assert channels.foldable(padded, constant).tolist() == [False, True, False]
    # A 1×1 kernel never reaches beyond the border.
    small = L.Conv2D(filters=1, kernel_size=1, padding="same")
    assert channels.foldable(small, constant).tolist() == [False, True, True]


def test_folding_by_hand():
    layer = L.Dense(2)
    layer.build((None, 3))
    layer.set_weights([np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([0.5, 0.25])])
    constant = np.array([np.nan, 2.0, -1.0])
    np.testing.assert_array_equal(channels.folded(layer, constant), [2 * 3 - 5, 2 * 4 - 6])
    np.testing.assert_array_equal(channels.bias(layer), [0.5, 0.25])
    assert channels.flat_kernel(layer).shape == (1, 3, 2)


def test_one_constant_stands_for_all_by_hand():
    # Inputs 1 and 2 are 2 and -1 wherever they are at all: -1 is minus half of 2.
    kernel = np.array([[[7.0], [3.0], [4.0]]])
    channels.gather_constants(kernel, np.array([np.nan, 2.0, -1.0]))
    assert kernel.ravel().tolist() == [7, 3 - 4 / 2, 0]
    alone = np.array([[[7.0], [3.0], [0.0]]])
    channels.gather_constants(alone, np.array([np.nan, 2.0, -1.0]))
    assert alone.ravel().tolist() == [7, 3, 0]
