"""A final softmax or sigmoid is removed exactly; a binary classifier gets two logits."""

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.models.logits import as_logits

L, Input, Model = keras.layers, keras.Input, keras.Model
ROWS = np.random.default_rng(0).normal(size=(20, 5)).astype("float32")


def sequential(*layers):
    return lambda: keras.Sequential([Input((5,)), *(make() for make in layers)], name="net")


def nested(*last):
    def make():
        trunk = keras.Sequential([Input((5,)), L.Dense(4, "relu")], name="trunk")
        head = keras.Sequential([Input((4,)), *(one() for one in last)], name="head")
        given = Input((5,))
        return Model(given, head(trunk(given)), name="net")

    return make


def half_precision():
    return keras.Sequential(
        [Input((5,)), L.Dense(3, dtype="mixed_float16"), L.Activation("softmax", dtype="float32")],
        name="net",
    )


SOFTMAX = {
    "dense": sequential(lambda: L.Dense(3, "softmax")),
    "activation": sequential(lambda: L.Dense(3), lambda: L.Activation("softmax")),
    "layer": sequential(lambda: L.Dense(3), lambda: L.Softmax()),
    "half": half_precision,
    "nested": nested(lambda: L.Dense(3, "softmax")),
    "nested_layer": nested(lambda: L.Dense(3), lambda: L.Softmax()),
}
BINARY = {
    "sigmoid": sequential(lambda: L.Dense(4, "relu"), lambda: L.Dense(1, "sigmoid")),
    "logit": sequential(lambda: L.Dense(1)),
    "without_bias": sequential(lambda: L.Dense(1, "sigmoid", use_bias=False)),
    "activation": sequential(lambda: L.Dense(1), lambda: L.Activation("sigmoid")),
    "dropout": sequential(
        lambda: L.Dense(1), lambda: L.Dropout(0.5), lambda: L.Activation("sigmoid")
    ),
    "nested": nested(lambda: L.Dense(1, "sigmoid")),
}


def varied(model):
    draw = np.random.default_rng(1)
    model.set_weights([draw.normal(size=w.shape) for w in model.get_weights()])
    return model


def softmax(logits):
    odds = np.exp(np.float64(logits) - np.max(logits, -1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


@pytest.mark.parametrize("name", SOFTMAX)
def test_a_softmax_is_removed(name):
    model = varied(SOFTMAX[name]())
    before = model.get_config(), model.get_weights(), model(ROWS, training=False).numpy()
    found, notice = as_logits(model)
    logits = found(ROWS, training=False).numpy()
    np.testing.assert_allclose(softmax(logits), before[2], atol=1e-6)
    assert logits.min() < 0 and logits.dtype == np.float32
    assert "softmax" in notice
    for one, other in zip(found.get_weights(), before[1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert model.get_config() == before[0], "the model of the caller is not changed"
    assert [layer.name for layer in found.layers] == [layer.name for layer in model.layers]
    assert as_logits(found) == (found, "")


@pytest.mark.parametrize("name", BINARY)
def test_a_binary_classifier_gets_two_logits(name):
    model = varied(BINARY[name]())
    found, notice = as_logits(model)
    logits = found(ROWS, training=False).numpy()
    output = model(ROWS, training=False).numpy()[:, 0].astype("float64")
    if name == "logit":
        np.testing.assert_allclose(logits[:, 1] - logits[:, 0], output, rtol=1e-5, atol=1e-6)
        output = 1 / (1 + np.exp(-output))
    np.testing.assert_allclose(softmax(logits)[:, 1], output, atol=1e-6)
    np.testing.assert_array_equal(logits[:, 0], -logits[:, 1])
    assert "(-z/2, z/2)" in notice
    kernel = found.get_weights()[-1 if name == "without_bias" else -2]
    assert (kernel != 0).all() and kernel.shape[-1] == 2


def test_logits_are_left_alone():
    for last in (lambda: L.Dense(3), lambda: L.Dense(2, "tanh"), lambda: L.Softmax(axis=0)):
        model = sequential(lambda: L.Dense(2), last)()
        assert as_logits(model) == (model, "")


def shared():
    given, dense = Input((5,)), L.Dense(5, "softmax", name="twice")
    return Model(given, dense(dense(given)), name="net")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            sequential(lambda: L.Dense(3, "sigmoid", name="last")),
            "'net'.*sigmoid.*3 classes.*'last'",
        ),
        (
            sequential(lambda: L.Reshape((5, 1)), lambda: L.GlobalMaxPooling1D()),
            "'net'.*one output",
        ),
        (sequential(lambda: L.Dense(1, "softmax")), "'net'.*one output"),
        (shared, "'net'.*'twice' 2 times"),
    ],
)
def test_what_cannot_give_logits_is_refused(make, words):
    with pytest.raises(UsageError, match=words):
        as_logits(make())
