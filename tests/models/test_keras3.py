"""Keras 3 models and their tf_keras twins give the same outputs, in both directions."""

import keras as keras3
import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.models.keras3 import from_keras3, is_keras3, to_keras3
from lotcal_tf.models.stateless_dropout import StatelessDropout

L, ops, Input, Model = keras3.layers, keras3.ops, keras3.Input, keras3.Model
IMAGES = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 3)).astype("float32")
IDS = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 0], [9, 1, 0, 0, 0]], "int32")
SERIES = np.random.default_rng(1).normal(size=(3, 6, 2)).astype("float32")
ROWS = np.random.default_rng(2).normal(size=(3, 7)).astype("float32")


def on(shape, *layers, dtype="float32"):
    """A sequential model; layers are made when the test runs."""
    return lambda: keras3.Sequential([Input(shape, dtype=dtype), *(make() for make in layers)])


def functional(shape, build, dtype="float32"):
    def make():
        given = Input(shape, dtype=dtype)
        return Model(given, build(given))

    return make


def image_cnn(x):
    x = L.RandomFlip("horizontal")(x)
    x = L.RandomRotation(0.1)(x)
    x = L.Rescaling(1 / 255)(x)
    x = L.Conv2D(4, 3, padding="same")(x)
    x = y = L.Activation("relu")(L.BatchNormalization()(x))
    x = L.SeparableConv2D(4, 3, padding="same")(x)
    x = L.BatchNormalization()(x)
    x = L.add([x, y])
    x = L.MaxPooling2D(3, strides=2, padding="same")(x)
    x = L.Dropout(0.25)(L.GlobalAveragePooling2D()(x))
    return L.Dense(2, activation=None)(x)


def transformer(x):
    for _ in range(2):
        y = L.MultiHeadAttention(2, 3, dropout=0.1)(x, x)
        x = L.LayerNormalization(epsilon=1e-6)(L.Dropout(0.1)(y) + x)
        y = L.Dropout(0.1)(L.Conv1D(4, 1, activation="relu")(x))
        x = L.LayerNormalization(epsilon=1e-6)(L.Conv1D(2, 1)(y) + x)
    return L.Dense(3, activation="softmax")(
        L.GlobalAveragePooling1D(data_format="channels_last")(x)
    )


def vit(x):
    x = L.Conv2D(6, 4, strides=4)(x)
    x = L.Reshape((4, 6))(x)
    x = L.LayerNormalization()(L.MultiHeadAttention(2, 3)(x, x) + x)
    x = L.Dense(6, activation=keras3.activations.gelu)(x) + x
    return L.Dense(3)(L.Flatten()(x))


def mixer(x):
    x = L.Reshape((4, 48))(x)
    y = L.Permute((2, 1))(L.LayerNormalization()(x))
    y = L.Dense(4)(L.Dense(5, activation="gelu")(y))
    x = L.Add()([x, L.Permute((2, 1))(y)])
    x = x + L.Dense(48)(L.Dense(5, activation="gelu")(L.LayerNormalization()(x)))
    return L.Dense(3)(L.GlobalAveragePooling1D()(x))


def masked_text(x):
    x = L.Embedding(10, 4, mask_zero=True)(x)
    x = L.Bidirectional(L.LSTM(3, return_sequences=True))(x)
    x = L.MultiHeadAttention(2, 2)(x, x)
    return L.Dense(2)(L.GRU(3)(x))


def operations(x):
    y = ops.reshape(x[:, 1:5], (-1, 96))
    y = ops.mean(y, axis=-1, keepdims=True) + y / 255
    y = ops.concatenate([y, ops.sqrt(ops.abs(y)) * 2.0], axis=-1)
    y = ops.expand_dims(ops.relu(1 - y), 1)
    y = ops.squeeze(ops.transpose(y, (0, 2, 1)), -1)
    y = ops.where(y > 0.5, y, ops.maximum(y, 0.25))
    return ops.softmax(L.Dense(3)(y))


def shared(x):
    dense = L.Dense(7, activation="tanh")
    block = keras3.Sequential([Input((7,)), L.Dense(7), L.BatchNormalization()], name="block")
    x = block(dense(dense(x)), training=False)
    return L.Dense(3)(L.concatenate([block(x), x]))


def distributed(x):
    each = keras3.Sequential([Input((2,)), L.Dense(4, "hard_silu"), L.BatchNormalization()])
    x = L.Concatenate()([L.TimeDistributed(each)(x), L.TimeDistributed(each)(-x)])
    return L.Dense(3)(L.GRU(4)(x))


def several(structure):
    def make():
        a, b = Input((7,), name="a"), Input((6, 2), name="b")
        x = L.Concatenate()([L.Dense(3)(a), L.SimpleRNN(2)(b)])
        return Model({"a": a, "b": b} if structure is dict else [a, b], L.Dense(2)(x))

    return make


def nested():
    trunk = Model(i := Input((7,)), L.Dense(5, activation="relu")(i), name="trunk")
    return keras3.Sequential([Input((7,)), trunk, keras3.Sequential([L.Dense(4), L.Dense(3)])])


def adapted():
    norm = L.Normalization()
    norm.adapt(ROWS)
    return keras3.Sequential([Input((7,)), norm, L.Dense(3)])


def application(name, **arguments):
    shape = (32, 32, 3)
    build = getattr(keras3.applications, name)
    return lambda: build(
        input_shape=shape, weights=None, classes=5, classifier_activation=None, **arguments
    )


MODELS = {
    "image_cnn": (functional((8, 8, 3), image_cnn), IMAGES),
    "transformer": (functional((6, 2), transformer), SERIES),
    "vit": (functional((8, 8, 3), vit), IMAGES),
    "mixer": (functional((8, 8, 3), mixer), IMAGES),
    "masked_text": (functional((5,), masked_text, "int32"), IDS),
    "operations": (functional((8, 8, 3), operations), IMAGES),
    "shared": (functional((7,), shared), ROWS),
    "distributed": (functional((6, 2), distributed), SERIES),
    "inputs_dict": (several(dict), {"a": ROWS, "b": SERIES}),
    "inputs_list": (several(list), [ROWS, SERIES]),
    "nested": (nested, ROWS),
    "adapted": (adapted, ROWS),
    "text_cnn": (
        on(
            (None,),
            lambda: L.Embedding(10, 4),
            lambda: L.Dropout(0.5),
            lambda: L.Conv1D(4, 3, padding="valid", activation="relu", strides=3),
            lambda: L.GlobalMaxPooling1D(),
            lambda: L.Dense(1, activation="sigmoid"),
            dtype="int64",
        ),
        IDS,
    ),
    "time_series_cnn": (
        on(
            (6, 2),
            lambda: L.Conv1D(4, 3, padding="same"),
            lambda: L.BatchNormalization(),
            lambda: L.ReLU(),
            lambda: L.GlobalAveragePooling1D(),
            lambda: L.Dense(3, activation="softmax"),
        ),
        SERIES,
    ),
    "half_precision": (
        on(
            (7,),
            lambda: L.Dense(6, activation="relu", dtype="mixed_float16"),
            lambda: L.Dense(3, dtype="mixed_float16"),
            lambda: L.Activation("softmax", dtype="float32"),
        ),
        ROWS,
    ),
    **{
        f"layer_{number}": (on(shape, make, lambda: L.Flatten(), lambda: L.Dense(2)), examples)
        for number, (shape, examples, make) in enumerate(
            [
                ((6, 2), SERIES, lambda: L.LSTM(3, return_sequences=True, recurrent_dropout=0.1)),
                ((6, 2), SERIES, lambda: L.GRU(3, reset_after=False)),
                ((6, 2), SERIES, lambda: L.GRU(3, reset_after=True, go_backwards=True)),
                ((6, 2), SERIES, lambda: L.RNN([L.LSTMCell(3), L.GRUCell(2)])),
                ((6, 2), SERIES, lambda: L.TimeDistributed(L.Dense(3))),
                ((6, 2), SERIES, lambda: L.SeparableConv1D(3, 2)),
                ((6, 2), SERIES, lambda: L.Conv1DTranspose(3, 2)),
                ((6, 2), SERIES, lambda: L.EinsumDense("abc,cd->abd", (6, 4), bias_axes="d")),
                ((6, 2), SERIES, lambda: L.Masking()),
                ((6, 2), SERIES, lambda: L.ZeroPadding1D(2)),
                ((6, 2), SERIES, lambda: L.UpSampling1D(2)),
                ((6, 2), SERIES, lambda: L.UnitNormalization()),
                ((8, 8, 3), IMAGES, lambda: L.DepthwiseConv2D(3, depth_multiplier=2)),
                ((8, 8, 3), IMAGES, lambda: L.Conv2DTranspose(3, 3, strides=2, padding="same")),
                ((8, 8, 3), IMAGES, lambda: L.Conv2D(6, 3, groups=3, kernel_regularizer="l2")),
                ((8, 8, 3), IMAGES, lambda: L.GroupNormalization(3)),
                ((8, 8, 3), IMAGES, lambda: L.BatchNormalization(axis=1, scale=False)),
                ((8, 8, 3), IMAGES, lambda: L.UpSampling2D(2, interpolation="bilinear")),
                ((8, 8, 3), IMAGES, lambda: L.Resizing(5, 4)),
                ((8, 8, 3), IMAGES, lambda: L.CenterCrop(4, 4)),
                ((8, 8, 3), IMAGES, lambda: L.Cropping2D(1)),
                ((8, 8, 3), IMAGES, lambda: L.RandomZoom(0.1, seed=3)),
                ((8, 8, 3), IMAGES, lambda: L.RandomContrast(0.1)),
                ((8, 8, 3), IMAGES, lambda: L.RandomTranslation(0.1, 0.1)),
                ((8, 8, 3), IMAGES, lambda: L.SpatialDropout2D(0.1)),
                ((7,), ROWS, lambda: L.PReLU()),
                ((7,), ROWS, lambda: L.LeakyReLU(negative_slope=0.15)),
                ((7,), ROWS, lambda: L.ELU(0.7)),
                ((7,), ROWS, lambda: L.Dense(4, activation="hard_sigmoid")),
                ((7,), ROWS, lambda: L.Dense(4, activation="hard_silu")),
                ((7,), ROWS, lambda: L.Activation("hard_sigmoid")),
                ((7,), ROWS, lambda: L.Dense(4, activation="relu6")),
                ((7,), ROWS, lambda: L.Dense(4, activation="silu", use_bias=False)),
                ((7,), ROWS, lambda: L.Dense(4, activation="leaky_relu")),
                ((7,), ROWS, lambda: L.Dense(4, activation="mish", kernel_constraint="max_norm")),
                ((7,), ROWS, lambda: L.GaussianNoise(0.1)),
                ((7,), ROWS, lambda: L.AlphaDropout(0.1)),
                ((7,), ROWS, lambda: L.RepeatVector(2)),
                ((7,), ROWS, lambda: L.Identity()),
                (
                    (7,),
                    ROWS,
                    lambda: L.Dense(3, kernel_initializer=keras3.initializers.HeNormal(4)),
                ),
            ]
        )
    },
}
APPLICATIONS = {
    "MobileNetV2": application("MobileNetV2", alpha=0.35),
    "MobileNetV3Small": application("MobileNetV3Small", alpha=0.35),
    "EfficientNetV2B0": application("EfficientNetV2B0"),
    "ResNet50": application("ResNet50"),
}


def with_random_weights(model):
    """Weights that tell every tensor, and every order of them, apart."""
    draw = np.random.default_rng(7)
    for weight in model.weights:
        wanted = draw.uniform(0.5, 1.5, weight.shape) if "variance" in weight.name else None
        value = draw.normal(0, 0.3, weight.shape) if wanted is None else wanted
        if "normalization/" not in weight.path:
            weight.assign(value.astype("float32"))
    return model


def outputs(model, examples):
    return np.asarray(model(examples, training=False))


@pytest.mark.full
@pytest.mark.parametrize("name", MODELS)
def test_a_twin_gives_the_same_outputs_in_both_directions(name):
    make, examples = MODELS[name]
    original = with_random_weights(make())
    expected = outputs(original, examples)
    twin = from_keras3(original, examples)
    assert isinstance(twin, keras.Model) and is_keras3(original) and not is_keras3(twin)
    limit = (1e-2 if name == "half_precision" else 1e-5) * np.abs(expected).max()
    np.testing.assert_allclose(outputs(twin, examples), expected, rtol=0, atol=limit)
    assert twin.count_params() == original.count_params() or name == "adapted"
    back = to_keras3(twin)
    assert is_keras3(back)
    np.testing.assert_allclose(outputs(back, examples), expected, rtol=0, atol=limit)


@pytest.mark.parametrize("reduce", ["sum", "mean", "prod", "max", "min"])
@pytest.mark.parametrize("dtype", ["int8", "int32"])
def test_integers_are_reduced_in_the_type_that_keras_uses(reduce, dtype):
    original = functional((4,), lambda x: getattr(ops, reduce)(x, axis=1), dtype)()
    examples = np.array([[100, 100, 1, 3], [1, 2, 2, 2]], dtype)
    expected = outputs(original, examples)
    np.testing.assert_array_equal(outputs(from_keras3(original), examples), expected)


@pytest.mark.full
@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application_has_a_twin_in_both_directions(name):
    original = with_random_weights(APPLICATIONS[name]())
    images = np.random.default_rng(3).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    expected = outputs(original, images)
    twin = from_keras3(original, images)
    limit = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(outputs(twin, images), expected, rtol=0, atol=limit)
    back = to_keras3(twin)
    np.testing.assert_allclose(outputs(back, images), expected, rtol=0, atol=limit)


class Scale(L.Layer):
    """A custom layer of Keras 3."""

    def build(self, shape):
        self.factor = self.add_weight(name="factor", shape=(shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * self.factor


class LegacyScale(keras.layers.Layer):
    """Its twin."""

    def build(self, shape):
        self.factor = self.add_weight("factor", (shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * self.factor


def custom_model():
    return keras3.Sequential([Input((7,)), Scale(name="scaled"), L.Dense(3)])


def test_a_custom_layer_needs_its_class():
    original = with_random_weights(custom_model())
    twin = from_keras3(original, ROWS, {"Scale": LegacyScale})
    np.testing.assert_allclose(outputs(twin, ROWS), outputs(original, ROWS), rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match="'scaled' .Scale.*custom_objects"):
        from_keras3(original)
    back = to_keras3(twin, {"LegacyScale": Scale})
    np.testing.assert_allclose(outputs(back, ROWS), outputs(original, ROWS), rtol=1e-5, atol=1e-6)


def test_other_weights_than_those_of_the_layer_are_refused():
    class WithoutWeights(keras.layers.Layer):
        pass

    with pytest.raises(UsageError, match="'scaled'.*factor .7,.*none"):
        from_keras3(custom_model(), custom_objects={"Scale": WithoutWeights})


def test_other_outputs_are_refused():
    class Doubled(LegacyScale):
        def call(self, inputs):
            return 2 * super().call(inputs)

    with pytest.raises(UsageError, match="differ by"):
        from_keras3(custom_model(), ROWS, {"Scale": Doubled})


def test_outputs_that_are_not_finite_are_refused():
    model = keras3.Sequential([keras3.Input((4,)), keras3.layers.Dense(3)])
    with pytest.raises(UsageError, match="gives NaN or infinity for the examples"):
        from_keras3(model, np.full((2, 4), np.nan, "float32"))


def test_a_registered_class_is_found():
    keras3.saving.register_keras_serializable("tests_keras3")(Scale)
    keras.saving.register_keras_serializable("tests_keras3", "Scale")(LegacyScale)
    try:
        from_keras3(custom_model(), ROWS)
    finally:
        for found in (keras3, keras):
            found.saving.get_custom_objects().pop("tests_keras3>Scale")


class Subclassed(Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (on((7,), lambda: L.Lambda(lambda x: x + 1, name="odd")), r"'odd' \(Lambda\).*code"),
        (on((7,), lambda: L.RMSNormalization(name="odd")), r"'odd' \(RMSNorm.*custom_objects"),
        (on((7,), lambda: L.LayerNormalization(rms_scaling=True, name="odd")), "'odd'.*rms_scaling"),
        (on((6, 2), lambda: L.LSTM(2, recurrent_activation="hard_sigmoid", name="odd")),
         "'odd'.*recurrent_activation='hard_sigmoid'"),
        (on((7,), lambda: L.Dense(2, activation="sparsemax", name="odd")), "'odd' .Dense.*sparsemax"),
        (functional((7,), lambda x: ops.cumsum(x, axis=1)), r"'cumsum.*Cumsum"),
        (functional((7,), lambda x: ops.max(x, axis=1, initial=5.0)), "'max.*initial"),
        (lambda: keras3.Sequential([L.Dense(2)], name="odd"), "'odd' has no weights.*Input"),
        (lambda: Subclassed(name="odd"), "'odd' .Subclassed. is a subclassed"),
        (lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]), "Keras 3 model is"),
    ],
)  # fmt: skip
def test_what_has_no_twin_is_named(make, words):
    with pytest.raises(UsageError, match=words) as caught:
        from_keras3(make())
    assert "\n" not in str(caught.value)


def test_frozen_layers_stay_frozen():
    original = keras3.Sequential([Input((7,)), L.Dense(4), L.Dense(3)])
    original.layers[0].trainable = False
    twin = from_keras3(original)
    assert [layer.trainable for layer in twin.layers[1:]] == [False, True]
    assert [layer.trainable for layer in to_keras3(twin).layers[1:]] == [False, True]


def test_stateless_dropout_becomes_that_of_keras():
    given = keras.Input((8, 8, 3))
    x = StatelessDropout(0.25, (1, 2), name="drop")(given)
    twin = to_keras3(keras.Model(given, keras.layers.Flatten()(x)))
    layer = twin.get_layer("drop")
    assert (type(layer), layer.rate) == (L.Dropout, 0.25)
    assert layer.noise_shape == (None, 1, 1, None)


def test_operations_get_names_that_no_layer_has():
    keras.backend.clear_session()  # automatic names count from 0
    given = Input((7,))
    ops.softmax(given)  # takes the name "softmax", which Keras 3 would give to the next one
    x = ops.relu(L.Rescaling(2.0, name="rescaling")(given) + 1.0)
    x = L.Activation("tanh", name="activation")(x * 3.0)
    original = Model(given, ops.softmax(L.Softmax(name="softmax")(x)))
    twin = from_keras3(original, ROWS)
    names = [layer.name for layer in twin.layers]
    assert {"rescaling_1", "rescaling_2", "activation_1", "softmax_1"} < set(names)
