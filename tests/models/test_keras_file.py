"""Files of both Kerases are read, and none of them runs code."""

import json
import zipfile

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.models.keras_file import read_model

ROWS = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")


def changed(path, change, name="config.json"):
    """Rewrites a file whose configuration is changed."""
    with zipfile.ZipFile(path) as file:
        content = {name: file.read(name) for name in file.namelist()}
    content[name] = change(content[name].decode()).encode()
    with zipfile.ZipFile(path, "w") as file:
        for part, data in content.items():
            file.writestr(part, data)


@pytest.mark.parametrize("found", [keras, keras3])
@pytest.mark.parametrize("version", [True, False])
def test_the_model_comes_back_in_its_keras(found, version, tmp_path):
    given = found.Input((4,))
    x = found.layers.Dense(3, "relu", kernel_regularizer="l2")(given)
    model = found.Model(given, found.layers.Dense(2)(x + 1.0))
    model.compile("adam", lambda y, z: 0.0)  # is not loaded
    model.save(tmp_path / "a.keras")
    if not version:
        changed(tmp_path / "a.keras", lambda text: "{}", "metadata.json")
    back = read_model(tmp_path / "a.keras")
    assert isinstance(back, found.Model)
    np.testing.assert_array_equal(np.asarray(back(ROWS)), np.asarray(model(ROWS)))


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("found", [keras, keras3])
def test_an_h5_file_comes_back_in_its_keras(found, tmp_path):
    given = found.Input((4,))
    inner = found.Sequential([found.Input((3,)), found.layers.Dense(3)], name="inner")
    inner.compile("adam", "mse")
    model = found.Model(given, inner(found.layers.Dense(3, "relu")(given)))
    model.compile("adam", "mse")
    model.save(tmp_path / "a.h5")
    back = read_model(tmp_path / "a.h5")
    assert isinstance(back, found.Model)
    np.testing.assert_array_equal(np.asarray(back(ROWS)), np.asarray(model(ROWS)))


@pytest.mark.parametrize("found", [keras, keras3])
def test_code_is_refused(found, tmp_path):
    model = found.Sequential([found.Input((4,)), found.layers.Lambda(lambda x: x, name="odd")])
    model.save(tmp_path / "a.keras")
    with pytest.raises(UsageError, match=r"a\.keras: layer 'odd' \(Lambda\).*code"):
        read_model(tmp_path / "a.keras")


def custom(found):
    class Odd(found.layers.Layer):
        pass

    return Odd


@pytest.mark.parametrize("found", [keras, keras3])
def test_a_class_that_is_not_registered_is_refused_until_it_is_passed(found, tmp_path):
    kind = custom(found)
    model = found.Sequential([found.Input((4,)), kind(name="odd"), found.layers.Dense(2)])
    model.save(tmp_path / "a.keras")
    with pytest.raises(UsageError, match=r"layer 'odd' \(Odd\).*not registered.*custom_objects"):
        read_model(tmp_path / "a.keras")
    both = {"Odd": kind}
    assert type(read_model(tmp_path / "a.keras", both).get_layer("odd")) is kind
    other = {"Odd": custom(keras3 if found is keras else keras)}
    with pytest.raises(UsageError, match="not registered"):
        read_model(tmp_path / "a.keras", other)


def operation(tmp_path):
    given = keras.Input((4,))
    model = keras.Model(given, tf.abs(given) + 1.0)
    model.save(tmp_path / "a.keras", save_format="keras")
    return tmp_path / "a.keras"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"math.abs"', '"io.read_file"', "tf.io.read_file"),
        ('"math.abs"', '"numpy_function"', "tf.numpy_function"),
        ('"TFOpLambda"', '"ClassMethod"', "ClassMethod.*code"),
        ('"keras.layers", "class_name": "InputLayer"', '"os", "class_name": "system"', "registered"),
        ('"keras.layers", "class_name": "InputLayer"',
         '"keras.utils", "class_name": "get_file"', "get_file.*registered"),
    ],
)  # fmt: skip
def test_a_changed_configuration_is_refused(old, new, words, tmp_path):
    path = operation(tmp_path)
    assert isinstance(read_model(path), keras.Model)

    def change(text):
        assert old in text
        return text.replace(old, new)

    changed(path, change)
    with pytest.raises(UsageError, match=words) as caught:
        read_model(path)
    assert "\n" not in str(caught.value)


def test_a_function_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "relu", name="odd")])
    model.save(tmp_path / "a.keras")
    function = {"module": "os", "class_name": "function", "config": "system"}
    changed(tmp_path / "a.keras", lambda text: text.replace('"relu"', json.dumps(function)))
    with pytest.raises(UsageError, match="'odd'.*system.*not registered"):
        read_model(tmp_path / "a.keras")


def test_a_lambda_as_an_activation_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, lambda x: x, name="odd")])
    model.save(tmp_path / "a.keras")
    with pytest.raises(UsageError, match="'odd'.*code"):
        read_model(tmp_path / "a.keras")


@pytest.mark.parametrize("found", [keras, keras3])
def test_layers_with_layers_inside_come_back(found, tmp_path):
    layers = found.layers
    model = found.Sequential(
        [
            found.Input((5, 4)),
            layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
            layers.TimeDistributed(layers.Dense(3, kernel_constraint="max_norm")),
            layers.RNN([layers.GRUCell(2), layers.LSTMCell(2)]),
            found.Sequential([layers.Dense(2, kernel_initializer=found.initializers.HeNormal(1))]),
        ]
    )
    model.save(tmp_path / "a.keras")
    inputs = np.ones((2, 5, 4), "float32")
    np.testing.assert_array_equal(
        np.asarray(read_model(tmp_path / "a.keras")(inputs)), np.asarray(model(inputs))
    )
