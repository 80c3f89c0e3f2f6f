import keras as keras_3
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.models.checks import check_images, check_outputs, classes_of

layers = keras.layers
EXAMPLES = tf.random.stateless_normal((16, 4), (1, 2))


def network(units=3, activation=None):
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(units, activation, name="d")(inputs), name="mine")


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("left half", "left_half"),
        ("right-half", "right_half"),
        ("1st", "input_1st"),
        ("_x", "input__x"),
    ],
)
def test_names_that_a_signature_cannot_have_are_refused(name, valid):
    pair = [keras.Input((4,), name="a_1"), keras.Input((4,), name=name)]
    model = keras.Model(pair, layers.Dense(3)(layers.Add()(pair)))
    with pytest.raises(UsageError, match=f"^input '{name}' of the model: .* name='{valid}'"):
        check_outputs(model, (EXAMPLES, EXAMPLES), 3)
    # One input is called `inputs` in files.
    check_outputs(keras.Model(pair[1], layers.Dense(3)(pair[1])), EXAMPLES, 3)


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def test_the_classes_are_counted():
    assert classes_of(network(7)) == 7
    assert classes_of(keras.Sequential([keras.Input((4,)), layers.Dense(2)])) == 2


def two_outputs():
    inputs = keras.Input((4,))
    return keras.Model(inputs, [layers.Dense(3)(inputs), layers.Dense(3)(inputs)], name="mine")


def named_output():
    inputs = keras.Input((4,))
    return keras.Model(inputs, {"logits": layers.Dense(3)(inputs)}, name="mine")


def a_logit_a_place():
    inputs = keras.Input((4, 2))
    return keras.Model(inputs, layers.Dense(3)(inputs), name="mine")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: keras_3.Sequential([keras_3.Input((4,)), keras_3.layers.Dense(3)]),
         r"the model is a Keras 3 model; a tf_keras model .*import tf_keras as keras"),
        (lambda: type("Mine", (keras_3.Model,), {})(),
         r"the model is a Keras 3 model; a tf_keras model .*import tf_keras as keras"),
        (lambda: tf.Module(), "the model is of type .*Module: a tf_keras model is needed"),
        (lambda: layers.Dense(3), "the model is of type Dense: a tf_keras model is needed"),
        (Subclassed, "Subclassed is a subclassed model.*PrunableLayer"),
        (lambda: keras.Sequential([layers.Dense(3)], name="mine"),
         "'mine' has no weights yet: let it begin with keras.Input"),
        (two_outputs, r"'mine' has output shape .*one output of logits"),
        (named_output, r"'mine' has output shape .*one output of logits"),
        (a_logit_a_place, r"'mine' has output shape \(None, 4, 3\): one output of logits"),
        (lambda: network(1), r"'mine' has output shape \(None, 1\): one output of logits"),
    ],
)  # fmt: skip
def test_other_models_are_refused_with_the_fix(make, message):
    with pytest.raises(UsageError, match=message) as raised:
        classes_of(make())
    assert "\n" not in str(raised.value)


def test_logits_pass():
    check_outputs(network(), EXAMPLES, 3)
    check_outputs(network(activation="relu"), EXAMPLES, 3)
    check_outputs(network(activation="tanh"), EXAMPLES, 3)


def test_logits_of_either_sign_that_add_up_to_one_pass():
    model = network()
    model.get_layer("d").kernel.assign(tf.zeros((4, 3)))
    model.get_layer("d").bias.assign([3.0, -1.0, -1.0])
    check_outputs(model, EXAMPLES, 3)


def test_integer_texts_pass_as_inputs():
    check_outputs(network(), tf.ones((2, 4), tf.uint8), 3)


def test_another_number_of_outputs_than_classes():
    with pytest.raises(UsageError, match="'mine' gives 3 outputs, and the data has 10 classes"):
        check_outputs(network(3), EXAMPLES, 10)


def ends_in_layer():
    model = network()
    return keras.Model(model.input, layers.Softmax()(model.output), name="mine")


def ends_in_operation():
    model = network()
    return keras.Model(model.input, tf.nn.softmax(model.output), name="mine")


@pytest.mark.parametrize(
    "make", [lambda: network(activation="softmax"), ends_in_layer, ends_in_operation]
)
def test_a_softmax_at_the_end_is_named_with_the_fix(make):
    with pytest.raises(UsageError, match=r"'mine' gives probabilities.*Dense\(classes\), not"):
        check_outputs(make(), EXAMPLES, 3)


def test_a_softmax_so_sure_that_it_gives_zeros_and_ones_is_found_too():
    model = network(activation="softmax")
    model.get_layer("d").kernel.assign(tf.eye(4, 3) * 1e6)
    assert set(model(EXAMPLES).numpy().ravel()) == {0.0, 1.0}
    with pytest.raises(UsageError, match="gives probabilities"):
        check_outputs(model, EXAMPLES, 3)


def test_inputs_that_the_model_cannot_take():
    with pytest.raises(UsageError, match=r"'mine' cannot take inputs of shape \(5,\)") as raised:
        check_outputs(network(), tf.ones((2, 5)), 3)
    assert "\n" not in str(raised.value)


def test_an_error_within_the_model_is_reported_in_one_line():
    inputs = keras.Input((None,))
    model = keras.Model(inputs, layers.Dense(3)(tf.reshape(inputs, (-1, 4))), name="mine")
    with pytest.raises(UsageError, match=r"'mine' cannot take inputs of shape \(5,\)") as raised:
        check_outputs(model, tf.ones((3, 5)), 3)
    assert "\n" not in str(raised.value)


def test_a_model_of_two_inputs_is_refused():
    a, b = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([a, b], layers.Dense(3)(a + b), name="mine")
    with pytest.raises(UsageError, match="'mine' cannot take inputs"):
        check_outputs(model, EXAMPLES, 3)


@pytest.mark.parametrize("shape", [(5, 5, 1), (5, 9, 3)])
def test_images_that_are_large_enough_pass(shape):
    check_images("some", shape, smallest=5)


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ((64,), "takes images (height, width, channels), and the data has examples of shape 64"),
        ((8, 8), "takes images (height, width, channels), and the data has examples of shape 8x8"),
        ((4, 9, 3), "needs images of 5x5 or more, and the data has 4x9x3"),
        ((9, 4, 3), "needs images of 5x5 or more, and the data has 9x4x3"),
    ],
)
def test_other_data_and_small_images_are_refused(shape, problem):
    with pytest.raises(FieldError) as caught:
        check_images("some_8", shape, smallest=5)
    assert str(caught.value).startswith(f"model=some_8: {problem}: choose ")
