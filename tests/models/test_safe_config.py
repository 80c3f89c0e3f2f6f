import json

import keras as keras3
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.models.safe_config import check_config

L = keras.layers


def config_of(*layers, shape=(4,)):
    return json.loads(keras.Sequential([keras.Input(shape), *layers]).to_json())


class Twice(L.Layer):
    def call(self, inputs):
        return 2 * inputs


class Ones(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None, **_):
        return tf.ones(shape, dtype)


def swish2(x):
    return x * tf.sigmoid(2 * x)


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (lambda: L.Lambda(swish2, name="mine"), r"'mine' \(Lambda\)"),
        (lambda: L.TimeDistributed(L.Lambda(lambda x: x, name="mine")), r"'mine' \(Lambda\)"),
        (lambda: L.Dense(2, activation=lambda x: x, name="mine"), r"'mine' \(Dense\).*function"),
        (lambda: L.Dense(2, kernel_regularizer=lambda w: 0.0, name="mine"), r"'mine' \(Dense\)"),
    ],
)
def test_python_code_is_refused_whatever_is_registered(layer, named):
    with (
        keras.utils.custom_object_scope({"swish2": swish2}),
        pytest.raises(UsageError, match=f"layer {named}"),
    ):
        check_config(config_of(layer(), shape=(3, 4)))


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (lambda: Twice(name="mine"), r"'mine' \(Twice\).*class 'Twice'"),
        (lambda: L.TimeDistributed(Twice(name="mine")), r"'mine' \(Twice\).*class 'Twice'"),
        (lambda: L.Dense(2, swish2, name="mine"), r"'mine' \(Dense\).*function 'swish2'"),
        (lambda: L.Dense(2, kernel_initializer=Ones(), name="mine"), r"'mine'.*class 'Ones'"),
    ],
)
def test_custom_objects_must_be_registered(layer, named):
    config = config_of(layer(), shape=(3, 4))
    with pytest.raises(UsageError, match=f"layer {named}.*register_keras_serializable.*custom_obj"):
        check_config(config)
    with keras.utils.custom_object_scope({"Twice": Twice, "swish2": swish2, "Ones": Ones}):
        check_config(config)


def operation(name):
    return {"class_name": "TFOpLambda", "config": {"name": "op", "function": name}}


@pytest.mark.parametrize(
    "name",
    ["io.gfile.rmtree", "io.write_file", "compat.v1.write_file", "py_function", "raw_ops.Add"],
)
def test_operations_that_do_more_than_compute_are_refused(name):
    with pytest.raises(UsageError, match=rf"layer 'op'.*tf.{name}"):
        check_config({"layers": [operation(name)]})


@pytest.mark.parametrize("module", ["os", "builtins", "my.layers"])
@pytest.mark.parametrize("kind", ["function", "system"])
def test_other_modules_are_not_imported(module, kind):
    found = {"class_name": kind, "module": module, "config": "exec", "registered_name": "exec"}
    with pytest.raises(UsageError, match="'exec' is not registered"):
        check_config([{"config": {"activation": found}}])


def test_what_keras_and_tensorflow_have_passes():
    inputs = keras.Input((4, 4, 3))
    x = tf.nn.relu(inputs) + tf.cast(tf.shape(inputs)[1], tf.float32)
    x = tf.reshape(tf.transpose(x, [0, 2, 1, 3])[:, :2], [-1, 24])
    x = L.Dense(4, "gelu", kernel_initializer=tf.constant_initializer(0.5))(tf.concat([x, x], -1))
    x = L.Dense(4, L.LeakyReLU(0.1), kernel_regularizer="l2", dtype="mixed_bfloat16")(x)
    check_config(json.loads(keras.Model(inputs, x).to_json()))


def test_a_connection_of_attention_is_not_a_function():
    given = keras.Input((4, 6))
    attended = keras.layers.MultiHeadAttention(2, 3)(given, value=given)
    check_config(json.loads(keras.Model(given, attended).to_json()))


MADE_WITH = [(), (2,), (2, 2), ((2, 2),), (0.5,), ("relu",), ("ab,bc->ac", 4), (8, 4, 2)]
HOLDING_CODE = {
    "Lambda",
    "DenseFeatures",
    "TFSMLayer",
    "TorchModuleWrapper",
    "JaxLayer",
    "FlaxLayer",
}


@pytest.mark.parametrize("found", [keras, keras3])
def test_every_other_layer_of_keras_passes(found):
    inside = [(found.layers.Dense(2),), (found.layers.LSTM(2),), ([found.layers.LSTMCell(2)],)]
    checked = set()
    for name, kind in vars(found.layers).items():
        if not (isinstance(kind, type) and issubclass(kind, found.layers.Layer)):
            continue
        for arguments in (*MADE_WITH, *inside):
            try:
                config = found.saving.serialize_keras_object(kind(*arguments))
            except Exception:
                continue  # other arguments are needed
            if name not in HOLDING_CODE:
                check_config(json.loads(json.dumps(config)), of=found)
                checked.add(name)
            break
    assert len(checked) > 120


def test_layers_and_operations_of_keras_3_with_one_name_pass():
    given = keras3.Input((4,))
    x = keras3.layers.Softmax()(keras3.ops.softmax(given) + 1.0)
    model = keras3.Model(given, keras3.ops.relu(keras3.layers.Dense(2)(x)[:, :1]))
    config = json.loads(json.dumps(keras3.saving.serialize_keras_object(model)))
    check_config(config, of=keras3)


@pytest.mark.parametrize("name", ["Map", "WhileLoop", "Cond", "Scan"])
def test_operations_that_call_functions_are_refused(name):
    config = {"class_name": name, "module": "keras.src.ops.core", "config": {"name": "odd"}}
    with pytest.raises(UsageError, match=f"'odd'.*{name}.*not registered"):
        check_config([config], of=keras3)


def test_a_registered_name_does_not_hide_another_class():
    with keras.utils.custom_object_scope({"mine>Twice": Twice}):
        config = {"class_name": "Twice", "registered_name": "mine>Twice", "config": {}}
        check_config(config)
        for kind in ("Lambda", "DropoutWrapper", "WideDeepModel"):
            with pytest.raises(UsageError):
                check_config({**config, "class_name": kind})


def test_the_configuration_of_the_training_is_left_out():
    config = {"class_name": "Dense", "config": {"compile_config": 1}, "compile_config": {"a": 1}}
    assert check_config({"layers": [config]}) == {
        "layers": [{"class_name": "Dense", "config": {"compile_config": 1}}]
    }
