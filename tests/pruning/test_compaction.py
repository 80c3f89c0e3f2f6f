"""Compaction: what is dead goes, what stays computes the same logits, on hand-made and random networks."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.models.build import build_model
from lotcal_tf.pruning.compaction import compact
from lotcal_tf.pruning.masking import leaf_layers
from tests.cases import quick

layers = keras.layers


@pytest.fixture(autouse=True)
def float64():
    """Networks of these tests compute in float64, where rounding hides nothing."""
    keras.backend.set_floatx("float64")
    yield
    keras.backend.set_floatx("float32")


def prune(model, kept, seed):
    """Random weights, of kernels only a share kept; random biases, half of them 0."""
    draw = np.random.default_rng(seed)
    for _, layer in leaf_layers(model):
        norm = isinstance(layer, layers.BatchNormalization)
        layer.set_weights(
            [
                draw.uniform(0.5, 2.0, w.shape)  # positive, for BatchNorm's variance
                if norm
                else draw.normal(size=w.shape)
                * (draw.random(w.shape) < (kept if w.ndim > 1 else 0.5))
                for w in layer.get_weights()
            ]
        )
    return model


def logits(model, shape, seed=0):
    inputs = np.random.default_rng(seed).normal(size=(8, *shape))
    return model(inputs, training=False).numpy()


def check_same(model, compaction, tolerance=1e-10):
    shape = model.input_shape[1:]
    before, after = logits(model, shape), logits(compaction.model, shape)
    assert np.abs(before - after).max() <= tolerance * max(1.0, np.abs(before).max())
    again = compact(compaction.model)
    assert again.model.count_params() == compaction.model.count_params()


def dense():
    return keras.Sequential(
        [
            keras.Input((5, 4)),
            layers.Rescaling(0.5, 0.1),
            layers.Flatten(),
            layers.Dense(12, "relu"),
            layers.BatchNormalization(),
            layers.Dense(9, "tanh", use_bias=False),
            layers.Dropout(0.5),
            layers.Dense(3),
        ]
    )


def convolutional(padding):
    return keras.Sequential(
        [
            keras.Input((9, 9, 2)),
            layers.Conv2D(8, 3, padding=padding, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, padding=padding, activation="relu"),
            layers.Conv2D(7, 1, activation="sigmoid"),
            layers.MaxPooling2D(2, padding="same"),
            layers.Conv2D(6, 2, strides=2, padding=padding, activation="relu"),
            layers.Flatten(),
            layers.Dense(5, "relu"),
            layers.Dense(3),
        ]
    )


def residual():
    inputs = x = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    for width, stride in ((8, 1), (10, 2)):
        short = x if stride == 1 else layers.Conv2D(width, 1, stride, use_bias=False)(x)
        y = layers.Conv2D(width, 3, stride, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same")(y))
        x = layers.ReLU()(layers.Add()([short, y]))
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)])
    return keras.Model(inputs, layers.Dense(4)(x))


def nested():
    inner_inputs = keras.Input((6,))
    hidden = layers.Dense(7, "relu", name="same_name")(inner_inputs)
    inner = keras.Model(inner_inputs, layers.Dense(6, "relu")(hidden), name="inner")
    inputs = keras.Input((6,))
    x = layers.Dense(6, "elu", name="same_name")(inputs)
    return keras.Model(inputs, layers.Dense(3)(layers.Add()([inner(x), x])))


def shared():
    """The inner model is used twice, an operator joins, and softmax couples channels."""
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6, "relu")])
    inputs = keras.Input((6,))
    x = layers.Dense(6, "relu")(inputs)
    x = layers.Dense(6, "softmax")(inner(inner(x)) + x)
    return keras.Model(inputs, layers.Dense(3)(x))


NETWORKS = {
    "dense": dense,
    "valid": lambda: convolutional("valid"),
    "same": lambda: convolutional("same"),
    "residual": residual,
    "nested": nested,
    "shared": shared,
}


@pytest.mark.parametrize("seed", quick(range(4), 0))
@pytest.mark.parametrize("kept", quick([1.0, 0.3, 0.1, 0.03, 0.0], 0.3, 0.03))
@pytest.mark.parametrize("network", NETWORKS)
def test_logits_are_the_same_and_nothing_dead_is_left(network, kept, seed):
    model = prune(NETWORKS[network](), kept, seed)
    before = [w.copy() for w in model.get_weights()]
    compaction = compact(model)
    check_same(model, compaction)
    if kept < 0.05 and network != "shared":  # That one is left alone.
        assert compaction.model.count_params() < model.count_params()
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)  # The original is left as it was.


@pytest.mark.parametrize("name", ["lenet_40_20", "resnet8_2", "vgg16_2"])
def test_dropout_of_a_strategy_keeps_nothing(name):
    def sizes(rate):
        model = build_model(name, (32, 32, 3), 3, seed=0, dropout_rate=rate, dropout_at="blocks")
        return list(compact(prune(model, 0.02, 0)).after.values())

    assert sizes(0.1) == sizes(0.0)


def test_float32_differs_by_rounding_only():
    keras.backend.set_floatx("float32")
    for name in ("dense", "same", "residual"):
        model = prune(NETWORKS[name](), 0.2, 1)
        compaction = compact(model)
        assert compaction.model.output.dtype == tf.float32
        check_same(model, compaction, 1e-5)


def test_units_that_nothing_reads_or_feeds_are_removed_and_their_constant_folded():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, "relu"), layers.Dense(2)])
    kernel = np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 4.0]])  # Nothing feeds unit 1: relu(5) = 5.
    model.layers[0].set_weights([kernel, np.array([0.5, 5.0, -1.0])])
    # Nothing reads unit 2.
    model.layers[1].set_weights(
        [np.array([[1.0, 2.0], [10.0, -10.0], [0.0, 0.0]]), np.array([0.25, 0.75])]
    )
    compaction = compact(model)
    assert list(compaction.before.values()) == [(2, 3), (3, 2)]
    assert list(compaction.after.values()) == [(2, 1), (1, 2)]
    kernel_1, bias_1, kernel_2, bias_2 = compaction.model.get_weights()
    np.testing.assert_array_equal(kernel_1, [[1.0], [3.0]])
    np.testing.assert_array_equal(bias_1, [0.5])
    np.testing.assert_array_equal(kernel_2, [[1.0, 2.0]])
    np.testing.assert_array_equal(bias_2, [0.25 + 50.0, 0.75 - 50.0])


def constant_channel(padding, bias):
    """A convolution whose channel 1 is the constant relu(bias), read by a 3x3 convolution."""
    model = keras.Sequential(
        [
            keras.Input((5, 5, 1)),
            layers.Conv2D(2, 1, activation="relu"),
            layers.Conv2D(1, 3, padding=padding, use_bias=False),
        ]
    )
    kernel = np.ones((1, 1, 1, 2))
    kernel[..., 1] = 0.0
    model.layers[0].set_weights([kernel, np.array([0.0, bias])])
    model.layers[1].set_weights([np.ones((3, 3, 2, 1))])
    return model


def test_a_constant_is_folded_without_padding():
    compaction = compact(constant_channel("valid", 2.0))
    assert list(compaction.after.values()) == [(1, 1, 1, 1), (3, 3, 1, 1)]
    # Nine places of 2; the layer had no bias and now has one.
    np.testing.assert_array_equal(compaction.model.get_weights()[3], [18.0])


def test_a_constant_beside_same_padding_stays_for_the_borders_sake():
    model = constant_channel("same", 2.0)
    compaction = compact(model)
    assert list(compaction.after.values()) == [(1, 1, 1, 2), (3, 3, 2, 1)]
    check_same(model, compaction)


def test_one_constant_beside_same_padding_stands_for_all():
    """Channels 1, 2 and 3 are the constants 2, -4 and 0.5: one with the sum of their kernels stays."""
    model = keras.Sequential(
        [
            keras.Input((5, 5, 1)),
            layers.Conv2D(4, 1),
            layers.Conv2D(2, 3, padding="same", use_bias=False),
        ]
    )
    kernel = np.zeros((1, 1, 1, 4))
    kernel[..., 0] = 1.0
    model.layers[0].set_weights([kernel, np.array([0.0, 2.0, -4.0, 0.5])])
    draw = np.random.default_rng(0).normal(size=(3, 3, 4, 2))
    model.layers[1].set_weights([draw])
    compaction = compact(model)
    assert list(compaction.after.values()) == [(1, 1, 1, 2), (3, 3, 2, 2)]
    # By the largest, -4: channel 1 counts -1/2 of it, channel 3 -1/8.
    wanted = draw[:, :, 2] - draw[:, :, 1] / 2 - draw[:, :, 3] / 8
    np.testing.assert_allclose(compaction.model.get_weights()[2][:, :, 1], wanted, rtol=1e-12)
    check_same(model, compaction)


def test_a_zero_beside_same_padding_goes():
    model = constant_channel("same", -2.0)
    compaction = compact(model)
    assert list(compaction.after.values()) == [(1, 1, 1, 1), (3, 3, 1, 1)]
    check_same(model, compaction)


@pytest.mark.parametrize("dead_in_both", [True, False])
def test_a_residual_channel_goes_only_where_it_is_dead_in_both(dead_in_both):
    inputs = keras.Input((3,))
    a = layers.Dense(2, use_bias=False)(inputs)
    b = layers.Dense(2, use_bias=False)(inputs)
    model = keras.Model(inputs, layers.Dense(1)(layers.Add()([a, b])))
    one_dead = np.array([[1.0, 0.0]] * 3)
    model.set_weights(
        [one_dead, one_dead if dead_in_both else np.ones((3, 2)), np.ones((2, 1)), np.zeros(1)]
    )
    compaction = compact(model)
    width = 1 if dead_in_both else 2
    assert list(compaction.after.values()) == [(3, width), (3, width), (width, 1)]
    check_same(model, compaction)


@pytest.mark.parametrize(("read", "gathered"), [(7, 7), (8, None)])
def test_inputs_that_nothing_reads_are_left_out_where_that_saves_a_quarter(read, gathered):
    model = keras.Sequential([keras.Input((10,)), layers.Dense(4, "relu"), layers.Dense(2)])
    kernel = np.random.default_rng(0).normal(size=(10, 4))
    kernel[np.random.default_rng(1).permutation(10)[read:]] = 0.0
    model.layers[0].set_weights([kernel, np.zeros(4)])
    compaction = compact(model)
    assert compaction.inputs_kept == gathered
    assert next(iter(compaction.after.values())) == (gathered or 10, 4)
    check_same(model, compaction)


def test_a_mask_of_the_input_stays():
    """Steps of zeros have no part in the mean, whatever the bias makes of them."""
    inputs = keras.Input((7, 20))
    x = layers.Dense(12, "relu")(layers.Masking()(inputs))
    model = keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))
    prune(model, 0.1, 0)
    kernel, bias = model.layers[2].get_weights()
    kernel[:10] = 0
    model.layers[2].set_weights([kernel, bias])
    compaction = compact(model)
    values = np.random.default_rng(0).normal(size=(5, 7, 20))
    values[:, 4:] = 0
    before, after = (m(values, training=False).numpy() for m in (model, compaction.model))
    np.testing.assert_allclose(after, before, atol=1e-10)
    assert compaction.model.count_params() < model.count_params()


def test_initialisers_with_an_array_do_not_matter():
    constant = keras.initializers.Constant
    hidden = layers.Dense(
        24, "relu", bias_initializer=constant(np.full(24, 0.1)), kernel_initializer=constant(0.3)
    )
    norm = layers.BatchNormalization(gamma_initializer=constant(np.full(24, 2.0)))
    model = keras.Sequential([keras.Input((10,)), hidden, norm, layers.Dense(2)])
    compaction = compact(prune(model, 0.05, 0))
    assert compaction.model.count_params() < model.count_params()
    check_same(model, compaction)


def test_a_gathered_network_is_saved_and_loaded_without_us(tmp_path):
    model = prune(keras.Sequential([keras.Input((10,)), layers.Dense(2)]), 0.2, 0)
    compaction = compact(model)
    assert compaction.inputs_kept is not None
    assert "lotcal_tf" not in compaction.model.to_json()
    compaction.model.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(logits(loaded, (10,)), logits(compaction.model, (10,)))


def test_a_catalog_model_pruned_hard_is_a_fraction():
    keras.backend.set_floatx("float32")
    model = prune(build_model("lenet_30_20", (8, 8, 1), 10, seed=0), 0.02, 0)
    compaction = compact(model)
    check_same(model, compaction, 1e-5)
    assert compaction.model.count_params() < model.count_params() / 4


def test_a_subclassed_model_is_refused():
    class Own(keras.Model):
        pass

    with pytest.raises(UsageError, match="subclassed"):
        compact(Own())


def test_constants_of_layers_with_their_own_type_are_merged():
    keras.backend.set_floatx("float32")  # Rescaling and Multiply then meet a float64 constant
    given = keras.Input((4,))
    x = layers.Dense(3, name="x")(given)
    model = keras.Model(given, layers.Multiply()([x, layers.Rescaling(0.5, 0.25)(x)]))
    kernel = np.ones((4, 3), "float32")
    kernel[:, 1] = 0
    model.get_layer("x").set_weights([kernel, np.float32([0, 2, 1])])
    found = compact(model).model(np.ones((1, 4), "float32")).numpy()
    np.testing.assert_allclose(found, [[4 * 2.25, 2 * 1.25, 5 * 2.75]], rtol=1e-6)
