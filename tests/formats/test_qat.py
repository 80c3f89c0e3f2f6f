"""Fine-tuning for int8: unsupported layers are named, zeros stay, runs are reproducible."""

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.data.splits import ResidentSplit
from lotcal_tf.errors import UsageError
from lotcal_tf.formats import qat, zeros
from lotcal_tf.formats.format import Material
from lotcal_tf.formats.qat import Int8Qat
from lotcal_tf.formats.tflite import TFLiteRunner

INPUTS = np.random.default_rng(0).normal(size=(30, 4, 2)).astype("float32")
MATERIAL = Material(INPUTS, np.arange(30) % 3, ResidentSplit.of(INPUTS, np.arange(30) % 3))


@pytest.mark.full
def test_zeros_stay_and_two_runs_are_the_same(ticket, tmp_path, monkeypatch):
    monkeypatch.setattr(qat, "STEPS", 5)
    files = [tmp_path / name for name in ("a.tflite", "b.tflite")]
    for path in files:
        Int8Qat().write(ticket.model(), path, MATERIAL)
    # Not byte by byte: within one process Keras numbers the layers that TFMOT adds.
    first, second = (TFLiteRunner(path)(INPUTS) for path in files)
    np.testing.assert_array_equal(first, second)
    zeros.check("a.tflite", Int8Qat().stored_tensors(files[0]), ticket.model())
    wanted = ticket.model()(INPUTS).numpy()
    assert np.abs(first - wanted).max() < 0.1 * np.ptp(wanted)
    # The last layer follows a BatchNorm that is computed in float, and is then itself float.
    files[1].write_bytes(Int8Qat().divide_logits(files[0], 2.0))
    np.testing.assert_array_equal(TFLiteRunner(files[1])(INPUTS), first / 2)


def test_a_layer_that_cannot_be_quantised_is_named(tmp_path):
    given = keras.Input((4, 2))
    x = keras.layers.Flatten()(keras.layers.Conv1D(3, 2, name="odd")(given))
    model = keras.Model(given, keras.layers.Dense(3)(x))
    with pytest.raises(
        UsageError, match=r"^TFMOT cannot fine-tune odd \(Conv1D\) for int8: choose"
    ):
        Int8Qat().write(model, tmp_path / "a.tflite", MATERIAL)
    assert not list(tmp_path.iterdir())


@pytest.mark.full
@pytest.mark.parametrize("after", ["norm", "conv"])
def test_a_convolution_that_is_read_twice_keeps_its_batch_norm(after, tmp_path, monkeypatch):
    """Folding BatchNorm into the convolution would change what the other layer reads."""
    monkeypatch.setattr(qat, "STEPS", 3)
    layers = keras.layers
    given = keras.Input((4, 4, 2))
    conv = layers.Conv2D(3, 2, name="conv")(given)
    norm = layers.BatchNormalization(name="norm")(conv)
    other = layers.Conv2D(3, 1, name="other")(conv)
    if after == "norm":
        norm = layers.ReLU()(norm)
    x = layers.Flatten()(layers.Add()([norm, other]))
    model = keras.Model(given, layers.Dense(3, name="logits")(x))
    draw = np.random.default_rng(0)
    model.set_weights([draw.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    inputs = draw.normal(size=(30, 4, 4, 2)).astype("float32")
    classes = np.arange(30) % 3
    material = Material(inputs, classes, ResidentSplit.of(inputs, classes))
    path = tmp_path / "a.tflite"
    Int8Qat().write(model, path, material)
    wanted = model(inputs).numpy()
    assert np.abs(TFLiteRunner(path)(inputs) - wanted).max() < 0.1 * np.ptp(wanted)
