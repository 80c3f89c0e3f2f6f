import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.lottery.ticket import architecture_of
from lotcal_tf.models.keras_graph import (
    check_walkable,
    copy_layer,
    flatten,
    is_nested,
    rebuild,
    with_stable_names,
)
from lotcal_tf.pruning import masking

layers = keras.layers


class Forgetful(layers.Layer):
    """Its get_config leaves an argument of the constructor out."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def get_config(self):
        return super().get_config()


class Nameless(layers.Layer):
    def get_config(self):
        return {}


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def copies(model):
    """A rebuilt model with the same weights, and the names of the layers in the order of copying."""
    copied = []

    def copy(layer):
        copied.append(layer.name)
        return copy_layer(layer)

    rebuilt = rebuild(model, copy)
    rebuilt.set_weights(model.get_weights())
    return rebuilt, copied


def test_copy_layer_gives_an_unbuilt_layer_of_the_same_configuration():
    layer = layers.Dense(3, activation="relu", trainable=False, name="hidden")
    layer.build((None, 2))
    copy = copy_layer(layer)
    assert copy is not layer
    assert not copy.built
    assert copy.get_config() == layer.get_config()


def test_copy_layer_follows_a_configuration_where_one_is_given():
    layer = layers.Dense(3, name="hidden")
    assert copy_layer(layer, layer.get_config() | {"units": 5}).units == 5


def test_copy_layer_keeps_a_name_that_the_configuration_leaves_out():
    assert copy_layer(Nameless(name="mine")).name == "mine"


def test_copy_layer_names_the_layer_whose_configuration_is_not_whole():
    with pytest.raises(UsageError, match=r"'mine' \(Forgetful\) cannot be copied: its get_config"):
        copy_layer(Forgetful(2, name="mine"))


def test_only_functional_and_sequential_models_are_nested():
    inputs = keras.Input((2,))
    assert is_nested(keras.Model(inputs, layers.Dense(1)(inputs)))
    assert is_nested(keras.Sequential([keras.Input((2,)), layers.Dense(1)]))
    assert not is_nested(Subclassed())
    assert not is_nested(layers.Dense(1))


def test_a_subclassed_model_is_refused_with_the_way_out():
    with pytest.raises(
        UsageError, match=r"Subclassed is a subclassed model.*PrunableLayer.*keras\.Model\(x"
    ):
        check_walkable(Subclassed())


def test_a_sequential_model_can_be_walked_once_it_is_built():
    model = keras.Sequential([layers.Dense(1)], name="mine")
    with pytest.raises(
        UsageError, match="'mine' has no weights yet: let it begin with keras.Input"
    ):
        check_walkable(model)
    model.build((None, 3))
    check_walkable(model)


def test_rebuild_copies_every_layer_once_through_two_levels_of_nesting():
    a, b, c = keras.Input((3,), name="a"), keras.Input((3,), name="b"), keras.Input((3,), name="c")
    inner = keras.Sequential([a, layers.Dense(3, name="deep")], name="inner")
    middle = keras.Model(b, layers.ReLU(name="relu")(inner(b)), name="middle")
    shared = layers.Dense(3, name="shared")
    outputs = layers.Add(name="add")([shared(middle(c)), shared(c)])
    model = keras.Model(c, outputs, name="outer")
    rebuilt, copied = copies(model)
    assert sorted(copied) == ["add", "deep", "relu", "shared"]
    assert rebuilt.name == "outer"
    assert [layer.name for layer in rebuilt.layers] == [layer.name for layer in model.layers]
    assert is_nested(rebuilt.get_layer("middle").get_layer("inner"))
    assert len(rebuilt.weights) == 4  # Two kernels, two biases.
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    np.testing.assert_array_equal(rebuilt(x), model(x))


def test_rebuild_leaves_the_original_alone():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2, name="d")(inputs))
    before, layer = model.get_weights(), model.get_layer("d")
    rebuilt = rebuild(model, copy_layer)
    rebuilt.set_weights([np.full_like(weight, 7) for weight in before])
    assert model.get_layer("d") is layer
    for left, weight in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(left, weight)


def test_what_nested_models_share_stays_shared():
    a, b = keras.Input((3,)), keras.Input((3,))
    shared = layers.Dense(3, name="shared")
    inner = keras.Model(a, shared(a), name="inner")
    twice = keras.Model(b, inner(shared(inner(b))), name="outer")
    rebuilt, copied = copies(twice)
    assert copied == ["shared"]
    assert rebuilt.get_layer("inner").get_layer("shared") is rebuilt.get_layer("shared")
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    np.testing.assert_array_equal(rebuilt(x), twice(x))


def test_rebuild_keeps_operations_between_layers():
    inputs = keras.Input((3,))
    x = layers.Dense(3)(inputs)
    model = keras.Model(inputs, layers.Dense(2)(tf.abs(x) * 2.0 + x))
    rebuilt, _ = copies(model)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    np.testing.assert_array_equal(rebuilt(x), model(x))


def test_flatten_dissolves_nested_models_and_computes_the_same():
    inner_inputs = keras.Input((4,))
    twice = keras.layers.Dense(4, "tanh", name="twice")
    inner = keras.Model(inner_inputs, twice(twice(inner_inputs)), name="inner")
    outer = keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(2)], name="outer")
    inputs = keras.Input((4,), name="given")
    x = keras.layers.Dense(4, name="inner_twice")(inputs)  # What the inner layer would be called.
    model = keras.Model(inputs, outer(x) + inner(x)[:, :2], name="whole")
    flat = flatten(model)
    assert not any(is_nested(layer) for layer in flat.layers)
    names = [layer.name for layer in flat.layers]
    assert (flat.name, names[0]) == ("whole", "given")
    assert {"inner_twice", "inner_twice_"} <= set(names)  # A name is taken once.
    assert len(names) == len(set(names))
    assert flat.count_params() == model.count_params()  # `twice` and `inner` are still shared.
    values = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    np.testing.assert_allclose(flat(values), model(values), rtol=1e-6)


# Stable names


class MyV2Layer(layers.Layer):
    """Its automatic name is my_v2_layer."""


def plain():
    inputs = keras.Input((3,))
    x = layers.Dense(4, "relu")(inputs)
    return keras.Model(inputs, layers.Dense(2)(x))


def sequential():
    return keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.ReLU(), layers.Dense(2)])


def sequential_with_an_input_shape():
    return keras.Sequential([layers.Dense(4, input_shape=(3,)), layers.Dense(2)])


def sequential_built_later():
    model = keras.Sequential([layers.Dense(4), layers.Dense(2)])
    model.build((None, 3))
    return model


def nested():
    body = keras.Sequential([layers.Dense(4, input_shape=(3,)), layers.Dense(4)])
    inputs = keras.Input((3,))
    x = layers.BatchNormalization()(MyV2Layer()(body(inputs)))
    return keras.Model(inputs, layers.Dense(2)(x))


def sequential_of_models():
    return keras.Sequential([sequential_with_an_input_shape(), layers.Dense(3), plain()])


def shared():
    inputs = keras.Input((3,))
    layer, body = layers.Dense(3), sequential_of_models()
    return keras.Model(inputs, body(layer(layer(inputs))) + body(inputs))


def two_inputs():
    first, second = keras.Input((3,)), keras.Input((2,))
    joined = layers.Concatenate()([layers.Dense(2)(first), layers.Dense(3)(second)])
    return keras.Model([first, second], layers.Dense(2)(joined))


def operations():
    inputs = keras.Input((3,))
    x = layers.Dense(3)(inputs)
    return keras.Model(inputs, layers.Dense(2)(tf.abs(x) * 2.0 + x[:, :3]))


def wrapped():
    inputs = keras.Input((3,))
    x = layers.Reshape((3, 1))(inputs)
    x = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(x)
    x = layers.RNN([layers.LSTMCell(2), layers.LSTMCell(2)])(x)
    return keras.Model(inputs, layers.Dense(2)(x))


BUILDS = (
    plain,
    sequential,
    sequential_with_an_input_shape,
    sequential_built_later,
    nested,
    sequential_of_models,
    shared,
    two_inputs,
    operations,
    wrapped,
)


@pytest.mark.full
@pytest.mark.parametrize("build", BUILDS)
def test_a_model_has_the_same_names_and_weights_however_often_it_is_built(build):
    keras.backend.clear_session()  # as in a new process
    first, second = build(), build()
    second.set_weights(first.get_weights())
    assert architecture_of(second) != architecture_of(first)
    models = [with_stable_names(model) for model in (first, second)]
    assert architecture_of(models[0]) == architecture_of(models[1])
    values = [masking.values(model) for model in models]
    assert list(values[0]) == list(values[1])
    for name, value in values[0].items():
        np.testing.assert_array_equal(values[1][name], value)
    draw = np.random.default_rng(0)
    inputs = [draw.normal(size=(4, *x.shape[1:])).astype("float32") for x in first.inputs]
    for model in (first, *models):
        np.testing.assert_array_equal(model(inputs), second(inputs))
    # What is shared still is: copies would have more weights.
    assert models[1].count_params() == second.count_params()


@pytest.mark.parametrize("build", [build for build in BUILDS if build is not shared])
def test_a_model_of_a_new_process_is_left_as_it_is(build):
    keras.backend.clear_session()
    model = build()
    assert with_stable_names(model) is model


def test_the_model_itself_is_not_changed():
    keras.backend.clear_session()
    sequential()
    model = sequential()
    names, weights = [layer.name for layer in model.layers], model.get_weights()
    copy = with_stable_names(model)
    copy.set_weights([weight + 1 for weight in weights])
    assert [layer.name for layer in model.layers] == names
    for value, weight in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(value, weight)


def test_names_of_the_users_own_are_kept_and_not_taken_twice():
    keras.backend.clear_session()
    plain()
    inputs = keras.Input((3,), name="pixels")
    x = layers.Dense(3, name="dense_of_mine")(layers.Dense(3)(inputs))
    x = layers.ReLU(name="dense")(layers.Dense(3)(x))
    model = keras.Model(inputs, layers.Dense(2, name="logits")(x), name="mine")
    copy = with_stable_names(model)
    assert copy.name == "mine"
    assert [layer.name for layer in copy.layers] == [
        "pixels", "dense_1", "dense_of_mine", "dense_2", "dense", "logits"
    ]  # fmt: skip


def test_frozen_layers_stay_frozen():
    keras.backend.clear_session()
    plain()
    model = plain()
    model.layers[1].trainable = False
    copy = with_stable_names(model)
    assert [layer.trainable for layer in copy.layers] == [True, False, True]
