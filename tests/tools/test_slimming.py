"""Slimming: what a channel costs by hand, the loss by hand, and that it takes scales away."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras

L = keras.layers


@pytest.fixture(scope="module")
def tool(load):
    return load("slimming")


@pytest.fixture
def network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            *(L.Conv2D(4, 3, padding="same", use_bias=False), L.BatchNormalization(), L.ReLU()),
            L.MaxPooling2D(),
            *(L.Conv2D(8, 3, padding="same", use_bias=False), L.BatchNormalization(), L.ReLU()),
            *(L.Conv2D(8, 3, padding="same", use_bias=False), L.BatchNormalization(), L.ReLU()),
            *(L.GlobalAveragePooling2D(), L.BatchNormalization(), L.Dense(3)),
        ]
    )


def test_costs_by_hand(tool, network):
    found, costs = tool.scales(network)
    # 64 places by 3 + 4 channels; 16 by 4 + 8; 16 by 8 + 8; the last one stands behind no map.
    assert [int(gamma.shape[0]) for gamma in found] == [4, 8, 8]
    assert costs == pytest.approx([448 / 256, 192 / 256, 256 / 256])


def test_the_loss_by_hand(tool, network):
    draw = np.random.default_rng(0)
    data = draw.normal(size=(16, 8, 8, 3)).astype("float32"), draw.integers(0, 3, 16)
    found, costs = tool.scales(network)
    found[0].assign([1.0, -2.0, 0.0, 0.5])
    for gamma in found[1:]:
        gamma.assign(np.zeros(8))
    logits = network(data[0], training=True).numpy().astype("float64")
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(16), data[1]]
    strategy = tool.Slimming(network)
    strategy.compile(optimizer=keras.optimizers.SGD(0.0))
    loss = float(strategy.train_step(tuple(map(tf.constant, data)))["loss"])
    assert loss == pytest.approx(losses.mean() + tool.STRENGTH * costs[0] * 3.5, rel=1e-5)


def test_scales_that_help_nothing_fall(tool, network):
    data = tf.zeros((16, 8, 8, 3)), tf.range(16) % 3  # nothing to see
    strategy = tool.Slimming(network)
    strategy.compile(optimizer=keras.optimizers.Adam(0.01))
    for _ in range(50):
        strategy.train_step(data)
    for gamma in tool.scales(network)[0]:
        assert np.abs(gamma.numpy()).max() < 0.6  # from 1, at most 0.01 a step


def test_a_network_without_scales_is_refused(tool):
    with pytest.raises(ValueError, match="needs BatchNorm after convolutions"):
        tool.scales(keras.Sequential([keras.Input((4,)), L.Dense(3)]))
