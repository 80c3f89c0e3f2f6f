"""Slimming: what is priced by hand, no common factor changes it, and channels really go."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.calibration import slimming
from lotcal_tf.calibration.slimming import Slimming
from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.pruning import masking

L = keras.layers


@pytest.fixture
def network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            *(L.Conv2D(4, 3, padding="same", use_bias=False), L.BatchNormalization(), L.ReLU()),
            L.MaxPooling2D(),
            *(L.Conv2D(8, 3, padding="same", use_bias=False), L.BatchNormalization(), L.ReLU()),
            *(L.Conv2D(8, 1, padding="same", use_bias=False), L.ReLU()),  # no BatchNorm behind it
            *(L.GlobalAveragePooling2D(), L.Dense(5), L.BatchNormalization(), L.Dense(3)),
        ]
    )


@pytest.fixture
def data():
    draw = np.random.default_rng(0)
    return draw.normal(size=(16, 8, 8, 3)).astype("float32"), draw.integers(0, 3, 16)


def strategy_of(network, optimizer):
    strategy = Slimming(network)
    strategy.compile(optimizer=optimizer)
    return strategy


def test_blocks_are_convolutions_with_a_batchnorm_behind_them_masked_or_not(network):
    for model in network, masking.wrap(network):
        found = slimming.blocks(model)
        assert [tuple(block.kernel.shape) for block in found] == [(3, 3, 3, 4), (3, 3, 4, 8)]
        assert [tuple(block.scales.shape) for block in found] == [(4,), (8,)]
        assert [block.places for block in found] == [64, 16]


@pytest.mark.parametrize(
    ("scales", "share"),
    [([2.0, -2.0, 2.0, 2.0], 1.0), ([0.0, -3.0, 0.0, 0.0], 0.25), ([3.0, 1.0, 0.0, 0.0], 0.4)],
)
def test_effective_channels_by_hand_and_no_common_factor_changes_them(scales, share):
    for factor in 1.0, 1e-2, 50.0:
        assert float(slimming.effective(tf.constant(scales) * factor)) == pytest.approx(
            share, rel=1e-5
        )


def test_the_cost_by_hand(network):
    assert float(slimming.cost(network)) == pytest.approx(1.0)
    first, second = slimming.blocks(network)
    first.scales.assign([1.0, 1.0, 0.0, 0.0])
    second.scales.assign([3.0, -1.0, 0, 0, 0, 0, 0, 0])  # 1.6 of 8
    # 108 weights at 64 places, 288 at 16; a half and a fifth of the channels, of 396 and of 11 520.
    weights = (108 * 0.5 + 288 * 0.5 * 0.2) / 396
    products = (6912 * 0.5 + 4608 * 0.5 * 0.2) / 11520
    assert float(slimming.cost(network)) == pytest.approx((weights + products) / 2, rel=1e-5)


def test_worthless_kernels_by_hand(network):
    first = slimming.blocks(network)[0]
    first.scales.assign([2.0, -1.96, 0.0, 0.04])  # mean 1: below .1 are two, by all and by .6
    first.kernel.assign(np.full((3, 3, 3, 4), 0.5))
    assert float(slimming.worthless(network)) == pytest.approx((1.0 + 0.6) * 27 * 0.25, rel=1e-5)


def test_the_loss_by_hand(network, data):
    slimming.blocks(network)[0].scales.assign([1.0, -2.0, 0.0, 0.5])
    logits = network(data[0], training=True).numpy().astype("float64")
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(16), data[1]]
    hyper = Slimming.Hyperparameters()
    slim = hyper.slimming_strength * slimming.cost(
        network
    ) + hyper.slimming_decay * slimming.worthless(network)
    strategy = strategy_of(network, keras.optimizers.SGD(0.0))
    price = float(slimming.cost(network))
    logs = strategy.train_step(tuple(map(tf.constant, data)))
    assert float(slimming.worthless(network)) > 0
    assert float(logs["loss"]) == pytest.approx(losses.mean() + float(slim), rel=1e-5)
    assert float(logs["cost"]) == pytest.approx(price, rel=1e-5)
    assert set(logs) == set(Slimming.log_names)


def test_channels_that_help_nothing_go_with_their_kernels(network):
    first, second = slimming.blocks(network)
    for block in first, second:
        block.scales.assign(np.linspace(0.2, 1.0, block.scales.shape[0]))
    kernels = [block.kernel.numpy() for block in (first, second)]
    nothing = tf.zeros((16, 8, 8, 3)), tf.range(16) % 3
    strategy = strategy_of(network, keras.optimizers.Adam(0.01))
    step = tf.function(strategy.train_step)
    for _ in range(500):
        step(nothing)
    for block, before in zip((first, second), kernels, strict=True):
        sizes = np.abs(block.scales.numpy())
        gone = sizes < 0.05 * sizes.max()
        assert gone.sum() == len(sizes) - 1  # the largest is left
        norms = [np.sqrt((values**2).sum((0, 1, 2))) for values in (block.kernel.numpy(), before)]
        assert (norms[0][gone] < 0.05 * norms[1][gone]).all()
        assert norms[0][~gone] == pytest.approx(norms[1][~gone])


def test_a_network_without_scales_is_refused():
    with pytest.raises(UsageError, match="has no convolution followed by BatchNorm"):
        Slimming(keras.Sequential([keras.Input((4,)), L.Dense(3)]))


L = keras.layers


def small(*layers, size=8):
    return keras.Sequential([keras.Input((size, size, 3)), *layers, L.Flatten(), L.Dense(2)])


@pytest.mark.parametrize(
    "between",
    [
        [L.SeparableConv2D(4, 3)],
        [L.GlobalAveragePooling2D()],
        [L.Flatten()],
        [L.Conv2DTranspose(3, 3)],
    ],
    ids=["separable", "pooled", "flat", "transposed"],
)
def test_a_kernel_belongs_to_its_own_batch_norm_only(between):
    network = small(L.Conv2D(4, 3), *between, L.BatchNormalization())
    with pytest.raises(UsageError, match="has no convolution followed by BatchNorm"):
        slimming.blocks(network)


def test_layers_without_kernels_may_stand_between():
    network = small(L.Conv2D(4, 3), L.ReLU(), L.MaxPooling2D(), L.BatchNormalization())
    (found,) = slimming.blocks(network)
    assert (found.kernel.shape[-1], found.places) == (4, 9)


def test_an_open_size_is_refused():
    network = keras.Sequential(
        [keras.Input((None, None, 3)), L.Conv2D(4, 3), L.BatchNormalization(name="open")]
    )
    with pytest.raises(UsageError, match="the output of layer 'open' is of open size"):
        slimming.blocks(network)
