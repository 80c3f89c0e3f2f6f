import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.lottery.round_trip import check_round_trip

L = keras.layers
INPUTS = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


class Scale(L.Layer):
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor


class Needs(Scale):
    def get_config(self):
        return L.Layer.get_config(self)


class Forgets(Needs):
    def __init__(self, factor=1.0, **kwargs):
        super().__init__(factor, **kwargs)


class Unknown(L.Layer):
    """Keeps a random array that is no weight."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor = np.random.default_rng().random()

    def call(self, inputs):
        return inputs * self.factor


class AlwaysNoisy(L.Layer):
    def call(self, inputs):
        return inputs + tf.random.normal(tf.shape(inputs))


class Loses(L.Dense):
    def save_own_variables(self, store):
        store["0"] = np.zeros(self.kernel.shape)
        store["1"] = np.zeros(self.bias.shape)


KNOWN = {kind.__name__: kind for kind in (Scale, Needs, Forgets, Unknown, AlwaysNoisy, Loses)}


def model_of(*layers):
    return keras.Sequential([keras.Input((4,)), *layers, L.Dense(3)])


def check(model, inputs=INPUTS):
    with keras.utils.custom_object_scope(KNOWN):
        check_round_trip(model, model, inputs)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: Needs(3.0, name="mine"), r"'inner/mine' \(Needs\).*get_config.*'factor'"),
        (lambda: Forgets(3.0, name="mine"), r"'inner/mine' \(Forgets\) computes something else"),
        (lambda: Unknown(name="mine"), r"'inner/mine' \(Unknown\) computes something.*add_weight"),
        (lambda: AlwaysNoisy(name="mine"), r"'inner/mine' \(AlwaysNoisy\).*training only"),
        (lambda: Loses(4, name="mine"), r"inner/mine/kernel is another one.*save_own_variables"),
    ],
)
def test_what_does_not_come_back_is_refused_by_name(layer, message):
    inner = keras.Sequential([keras.Input((4,)), layer()], name="inner")
    with pytest.raises(UsageError, match=message):
        check(model_of(L.Dense(4), inner))


def several_inputs():
    a, b = keras.Input((4,), name="a"), keras.Input((2,), dtype="int32", name="b")
    x = L.Flatten()(L.Embedding(5, 2)(b))
    return keras.Model({"a": a, "b": b}, L.Dense(3)(L.concatenate([a, x])))


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (lambda: model_of(Scale(3.0), Forgets()), INPUTS),
        (lambda: model_of(L.Dense(5, kernel_initializer=tf.constant_initializer(2.0))), INPUTS),
        (lambda: model_of(L.Normalization(mean=[1.0, 2, 3, 4], variance=[1.0] * 4)), INPUTS),
        (lambda: model_of(L.Dropout(0.5), L.BatchNormalization(), L.GaussianNoise(1.0)), INPUTS),
        (several_inputs, {"a": INPUTS, "b": np.arange(12).reshape(6, 2) % 5}),
        (
            lambda: keras.Sequential([keras.Input((4,), batch_size=2), L.Dense(3)]),
            INPUTS,
        ),
    ],
)
def test_what_comes_back_passes_and_is_left_alone(model, inputs):
    model = model()
    before = model.get_weights()
    check(model, inputs)
    for value, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_outputs_that_are_not_finite_are_compared_too():
    check(model_of(), np.full((2, 4), np.nan, "float32"))
    check(model_of(), np.zeros((2, 4), "float32"))
