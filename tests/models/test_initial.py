import random

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.models.initial import redraw
from lotcal_tf.models.keras_graph import copy_layer, rebuild
from lotcal_tf.pruning.masking import values

layers = keras.layers


@keras.saving.register_keras_serializable("tests")
class Hidden(layers.Layer):
    """Its configuration does not show how its kernel is drawn."""

    def build(self, input_shape):
        self.kernel = self.add_weight("kernel", (input_shape[-1], 5))
        super().build(input_shape)

    def call(self, inputs):
        return inputs @ self.kernel


def everything():
    """A nested model with initializers plain, of one seed, within cells, shared and hidden."""
    a, b = keras.Input((4, 5)), keras.Input((4, 5))
    inner = keras.Model(a, layers.Dense(5, name="deep")(a), name="inner")
    x = layers.Dense(5, kernel_initializer=keras.initializers.HeNormal(seed=3), name="seeded")(b)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, inner(x))
    x = layers.Bidirectional(layers.LSTM(3), name="both_ways")(x)
    return keras.Model(b, layers.Dense(5, name="last")(Hidden(name="hidden")(x)))


@pytest.fixture(scope="module")
def model():
    return everything()


def kernels(network):
    """Also those of three dimensions; biases and their like are no random draws."""
    return {name: value for name, value in values(network).items() if "kernel" in name}


def test_the_same_name_gives_the_same_weights_whatever_was_drawn_before(model):
    first = redraw(model, 7, "reinitialise", 3)
    keras.utils.set_random_seed(99)
    everything()
    again = redraw(model, 7, "reinitialise", 3)
    for a, b in zip(values(first).values(), values(again).values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_callers_random_numbers_go_on(model):
    keras.utils.set_random_seed(5)
    expected = random.random(), np.random.random()
    keras.utils.set_random_seed(5)
    redraw(model, 7, "reinitialise", 3)
    assert (random.random(), np.random.random()) == expected


@pytest.mark.full
def test_another_seed_use_or_index_gives_other_weights(model):
    first = kernels(redraw(model, 7, "use", 3))
    assert len(first) == 12
    for other in [(8, "use", 3), (7, "another", 3), (7, "use", 4), (7, "use")]:
        second = kernels(redraw(model, *other))
        for name in first:
            assert (first[name] != second[name]).mean() > 0.9, (name, other)


def test_no_two_kernels_of_one_shape_are_drawn_alike(model):
    """Query, key and value are made by one initializer; so are both ways of Bidirectional."""
    drawn = list(kernels(redraw(model, 0, "initial")).items())
    pairs = [
        (one, other)
        for place, (one, a) in enumerate(drawn)
        for other, b in drawn[place + 1 :]
        if a.shape == b.shape and np.array_equal(a, b)
    ]
    assert pairs == []


def test_what_is_redrawn_is_the_initializer_s_distribution():
    inputs = keras.Input((100,))
    uniform = keras.initializers.RandomUniform(2.0, 3.0, seed=1)
    dense = layers.Dense(200, kernel_initializer=uniform, bias_initializer="ones", name="d")
    model = keras.Model(inputs, dense(inputs))
    drawn = values(redraw(model, 0, "initial"))
    kernel = drawn["d/kernel"]
    assert 2 <= kernel.min() < 2.01 and 2.99 < kernel.max() <= 3
    assert kernel.mean() == pytest.approx(2.5, abs=5 / np.sqrt(12 * kernel.size))
    np.testing.assert_array_equal(drawn["d/bias"], np.ones(200))


def test_a_copy_is_redrawn_and_the_model_left_alone(model):
    before, configuration = values(model), model.to_json()
    redrawn = redraw(model, 0, "initial")
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, before[name])
    assert model.to_json() == configuration
    assert list(values(redrawn)) == list(before)
    assert rebuild(redrawn, copy_layer).count_params() == model.count_params()
