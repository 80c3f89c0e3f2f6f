"""Folding a temperature into the last layer: logits / T, zeros stay, unsuitable models are refused."""

import numpy as np
import pytest

from lotcal_tf.calibration.post_hoc import fit_temperature
from lotcal_tf.compat import keras
from lotcal_tf.deploy.scaling import fold_temperature, refit
from lotcal_tf.errors import UsageError
from lotcal_tf.formats.format import Material
from lotcal_tf.formats.keras import KerasFile
from lotcal_tf.formats.outputs import with_softmax
from lotcal_tf.formats.tflite import Int8, TFLiteRunner
from lotcal_tf.pruning import masking

layers = keras.layers


def tiny(*after, inner=False, **last):
    """4 → 5 → 3, what comes after the last layer with weights, weights of normal draws."""
    keras.utils.set_random_seed(0)
    given = keras.Input((4,))
    x = layers.Dense(5, activation="relu", name="hidden")(given)
    x = layers.Dense(3, name="logits", **last)(x)
    for layer in after:
        x = layer(x)
    model = keras.Model(given, x)
    if inner:
        outer = keras.Input((4,))
        model = keras.Model(outer, model(outer))
    rng = np.random.default_rng(1)
    for value in model.trainable_variables:
        value.assign(rng.normal(size=value.shape))
    return model


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("temperature", [0.05, 0.7, 1.0, 3.0, 90.0])
def test_logits_are_divided_and_zeros_are_kept(ticket, inputs, temperature, inner):
    examples = np.random.default_rng(2).normal(size=(20, 4)).astype("float32")
    for model, x in [(ticket.model(), inputs), (tiny(inner=inner), examples)]:
        before, logits = masking.values(model), model(x).numpy()
        fold_temperature(model, temperature, x)
        np.testing.assert_allclose(
            model(x), logits / temperature, rtol=1e-4, atol=1e-5 / temperature
        )
        after = masking.values(model)
        for name, value in after.items():
            np.testing.assert_array_equal(value == 0, before[name] == 0, err_msg=name)
            divisor = temperature if "logits/" in name else 1
            np.testing.assert_allclose(value, before[name] / divisor, rtol=1e-6, err_msg=name)
    assert (ticket.model().get_layer("logits").kernel.numpy() == 0).any()


def test_a_last_layer_without_a_bias():
    model, x = tiny(use_bias=False), np.ones((1, 4), "float32")
    logits = model(x).numpy()
    fold_temperature(model, 2.0, x)
    np.testing.assert_allclose(model(x), logits / 2, rtol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        lambda: tiny(activation="tanh"),
        lambda: tiny(activation="softmax"),
        lambda: tiny(layers.Activation("tanh")),
        lambda: tiny(layers.BatchNormalization(beta_initializer="ones")),
        lambda: tiny(layers.Rescaling(1.0, offset=0.5)),
    ],
    ids=["tanh", "softmax", "tanh_after", "batch_norm", "offset"],
)
def test_logits_that_no_linear_layer_gives_are_refused_and_the_model_is_as_it_was(model):
    model = model()
    before = masking.values(model)
    with pytest.raises(UsageError, match="layer 'logits', which is not a linear last layer"):
        fold_temperature(model, 2.0, np.random.default_rng(2).normal(size=(8, 4)))
    for name, value in masking.values(model).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def write_sparse(model, path, material):
    Int8().write(model, path, material)
    path.write_bytes(Int8().encode(model, path.read_bytes()))


@pytest.mark.parametrize("softmax", [False, True])
def test_a_written_file_is_refitted_to_what_itself_gives(ticket, inputs, tmp_path, softmax):
    inputs = np.tile(inputs, (5, 1, 1))
    path, labels = tmp_path / "a.tflite", np.arange(len(inputs)) % 3
    material = Material(inputs, labels)
    write_sparse(ticket.model(), path, material)
    before = TFLiteRunner(path)(inputs)
    if softmax:
        model = with_softmax(ticket.model())
        write_sparse(model, path, material)
    temperature = refit(path, Int8(), material)
    assert temperature == pytest.approx(fit_temperature(labels, before), rel=1e-3)
    after, wanted = TFLiteRunner(path)(inputs), before / temperature
    if softmax:
        wanted = np.exp(wanted) / np.exp(wanted).sum(-1, keepdims=True)
    np.testing.assert_allclose(after, wanted, rtol=1e-4, atol=1e-6)
    assert [file.name for file in tmp_path.iterdir()] == ["a.tflite"]


def test_a_file_that_ends_in_pooling_is_left_as_it_is(tmp_path):
    inputs = np.random.default_rng(0).normal(size=(120, 8, 8, 3)).astype(np.float32)
    given = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1)(layers.Conv2D(8, 3, activation="relu")(given))
    model = keras.Model(given, layers.GlobalAveragePooling2D()(x))
    path, material = tmp_path / "a.tflite", Material(inputs, np.arange(120) % 4)
    Int8().write(model, path, material)
    content = path.read_bytes()
    assert refit(path, Int8(), material) == 1
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [content]


def test_a_few_validation_examples_give_no_temperature(ticket, inputs, tmp_path):
    path, labels = tmp_path / "a.tflite", np.arange(len(inputs)) % 3
    Int8().write(ticket.model(), path, Material(inputs, labels))
    content = path.read_bytes()
    assert refit(path, Int8(), Material(inputs, labels)) == 1
    assert path.read_bytes() == content


def test_a_format_that_cannot_divide_logits_keeps_its_file(ticket, inputs, tmp_path):
    path = tmp_path / "a.keras"
    KerasFile().write(ticket.model(), path)
    content = path.read_bytes()
    assert refit(path, KerasFile(), Material(inputs, np.arange(len(inputs)) % 3)) == 1
    assert path.read_bytes() == content
