"""A file that is not trusted gives the same outputs in a child process as in this one."""

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.formats.format import Material
from lotcal_tf.formats.tflite import Int8, TFLiteRunner
from lotcal_tf.formats.tflite_file import isolated
from lotcal_tf.formats.tflite_file.converter import convert

L = keras.layers
ROWS = np.random.default_rng(0).normal(size=(7, 4)).astype("float32")


def one_input(path, **options):
    path.write_bytes(
        convert(keras.Sequential([keras.Input((4,), **options), L.Dense(3, name="logits")]))
    )
    return ROWS


def fixed_batch(path):
    return one_input(path, batch_size=5)


def two_inputs(path):
    first, second = keras.Input((4,), name="first"), keras.Input((2,), name="second")
    x = L.Dense(3, name="logits")(L.Concatenate()([first, second]))
    path.write_bytes(convert(keras.Model([first, second], x)))
    return {"first": ROWS, "second": ROWS[:, :2]}


def int8(path):
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="logits")])
    Int8().write(model, path, Material(validation=ROWS, labels=np.arange(7) % 3))
    return ROWS


def large(path):
    """More than fits into a pipe."""
    path.write_bytes(
        convert(keras.Sequential([keras.Input((100_000,)), L.Dense(3, name="logits")]))
    )
    return np.ones((5, 100_000), "float32")


@pytest.mark.parametrize("make", [one_input, fixed_batch, two_inputs, int8, large])
def test_the_outputs_are_the_same(make, tmp_path):
    path = tmp_path / "a.tflite"
    inputs = make(path)
    here, there = TFLiteRunner(path, 1), TFLiteRunner(path, 1, trusted=False)
    np.testing.assert_array_equal(there(inputs), here(inputs))
    assert (there.inputs, there.classes, there.output) == (here.inputs, here.classes, here.output)


def test_the_process_ends_with_its_interpreter(tmp_path):
    one_input(tmp_path / "a.tflite")
    interpreter = isolated.IsolatedInterpreter(tmp_path / "a.tflite", 1)
    child = interpreter.child
    assert child.poll() is None
    del interpreter
    assert child.poll() is not None
