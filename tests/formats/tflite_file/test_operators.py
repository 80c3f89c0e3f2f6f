"""What a `.tflite` file says of its kernels, of files that the converter makes of known networks."""

import logging

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.formats.tflite_file import operators

layers = keras.layers


@pytest.fixture(scope="module")
def network():
    """A stem, a 1×1 and a depthwise convolution with scattered zeros; two dense layers with runs of 4."""
    given = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, strides=2, name="stem")(given)
    x = layers.Conv2D(8, 1, activation="relu", name="point")(x)
    x = layers.DepthwiseConv2D(2, name="depth")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(16, activation="relu", name="hidden")(x)
    model = keras.Model(given, layers.Dense(3, name="logits")(x))
    draw = np.random.default_rng(0)
    for layer in model.layers:
        weights = layer.get_weights()
        if weights:
            kernel = weights[0]
            if kernel.ndim == 2:  # Blocks of four inputs of one output, one of twenty is kept.
                keep = np.repeat(draw.random((kernel.shape[0] // 4, kernel.shape[1])) < 0.05, 4, 0)
                keep[:4] = True
            else:
                keep = draw.random(kernel.shape) < 0.3
            layer.set_weights([kernel * keep, *weights[1:]])
    return model


@pytest.fixture(scope="module")
def graph(network, tmp_path_factory):
    """graph(sparse, half) → what the network's file says."""

    def made(sparse, half=False):
        converter = tf.lite.TFLiteConverter.from_keras_model(network)
        if sparse:
            converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
        if half:
            converter.optimizations = [*converter.optimizations, tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        path = tmp_path_factory.mktemp("operators") / "network.tflite"
        logging.getLogger("absl").setLevel(logging.ERROR)
        path.write_bytes(converter.convert())
        return operators.read(path)

    return made


def by_shape(graph):
    return {use.shape: use for use in graph.kernels.values()}


SHAPES = {
    (4, 3, 3, 3): "CONV_2D",
    (8, 1, 1, 4): "CONV_2D",
    (1, 2, 2, 8): "DEPTHWISE_CONV_2D",
    (16, 32): "FULLY_CONNECTED",
    (3, 16): "FULLY_CONNECTED",
}


def test_a_dense_file(graph):
    found = graph(sparse=False)
    uses = by_shape(found)
    assert {shape: use.operator for shape, use in uses.items()} == SHAPES
    for use in uses.values():
        assert (use.sparse, use.densified, use.block, use.floating) == (False, False, (), True)
    assert found.stem and "DENSIFY" not in found.operators


def test_a_sparse_file_unpacks_what_no_block_fits(graph):
    found = graph(sparse=True)
    uses = by_shape(found)
    assert {shape: use.operator for shape, use in uses.items()} == SHAPES
    assert all(use.sparse for use in uses.values())
    # Scattered zeros of a convolution: unpacked; blocks of four of a dense layer: read as they are.
    for shape, use in uses.items():
        dense = use.operator == "FULLY_CONNECTED"
        assert (use.densified, use.block) == ((False, (1, 4)) if dense else (True, ())), shape
    assert found.operators.count("DENSIFY") == 3


def test_half_floats_are_followed_through_dequantising(graph):
    uses = by_shape(graph(sparse=True, half=True))
    assert {shape: use.operator for shape, use in uses.items()} == SHAPES
    assert all(use.floating and use.densified for use in uses.values() if len(use.shape) == 4)


def test_a_stem_is_of_three_channels_and_stride_two(network, tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten()])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (tmp_path / "a.tflite").write_bytes(converter.convert())
    assert not operators.read(tmp_path / "a.tflite").stem
