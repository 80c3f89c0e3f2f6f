"""A `.tflite` file gives the ticket's logits by LiteRT alone."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from lotcal_tf.errors import UsageError
from lotcal_tf.formats import tflite
from lotcal_tf.formats.format import Material
from lotcal_tf.formats.tflite import Float32, TFLiteRunner
from lotcal_tf.formats.tflite_file import converter


@pytest.fixture(scope="module")
def path(ticket, tmp_path_factory):
    path = tmp_path_factory.mktemp("tflite") / "ticket.tflite"
    Float32().write(ticket.model(), path)
    return path


def test_logits_are_the_tickets_for_any_batch_size(path, inputs, logits):
    runner = TFLiteRunner(path)
    for batch_size in (1, 10, 23, 1000):
        found = runner(inputs, batch_size)
        assert found.dtype == np.float32 and found.shape == (23, 3)
        np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)


def test_input_and_output_are_plain_float32(path):
    interpreter = Interpreter(str(path))
    (given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (list(given["shape_signature"]), given["dtype"]) == ([-1, 4, 2], np.float32)
    assert (list(found["shape_signature"]), found["dtype"]) == ([-1, 3], np.float32)


def test_logging_is_as_before_after_a_conversion(ticket, tmp_path, monkeypatch):
    logger = logging.getLogger("absl")
    monkeypatch.setattr(logger, "level", logging.DEBUG)

    def failing(directory):
        assert logger.level == logging.ERROR
        raise OSError("no converter")

    monkeypatch.setattr(converter.SavedModel, "write", lambda self, model, path: None)
    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_saved_model", failing)
    with pytest.raises(OSError, match="no converter"):
        Float32().write(ticket.model(), tmp_path / "ticket.tflite")
    assert logger.level == logging.DEBUG
    assert not (tmp_path / "ticket.tflite").exists()


@pytest.fixture(scope="module")
def converted(ticket, inputs):
    """converted(**settings) → the ticket converted with the converter's attributes so set."""

    def convert(batch=None, **settings):
        model = ticket.model()
        spec = tf.TensorSpec([batch, 4, 2], tf.float32)
        concrete = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], model)
        for name, value in settings.items():
            setattr(converter, name, value)
        if "optimizations" in settings:
            converter.representative_dataset = lambda: ([x[None]] for x in inputs)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        return converter.convert()

    return convert


@pytest.mark.parametrize("kind", [tf.int8, tf.uint8])
def test_integers_are_read_by_scale_and_zero_point(converted, inputs, logits, tmp_path, kind):
    (tmp_path / "q.tflite").write_bytes(
        converted(
            optimizations=[tf.lite.Optimize.DEFAULT],
            inference_input_type=kind,
            inference_output_type=kind,
        )
    )
    interpreter = Interpreter(str(tmp_path / "q.tflite"))
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    (scale, zero), (step, centre) = given["quantization"], result["quantization"]
    assert given["dtype"] == result["dtype"] == kind.as_numpy_dtype and scale and step
    # By hand, one example at a time; what lies beyond the range is its end.
    limits = np.iinfo(given["dtype"])
    expected = []
    interpreter.allocate_tensors()
    for example in 1.2 * inputs:
        whole = [
            min(max(round(float(v) / scale) + zero, limits.min), limits.max) for v in example.flat
        ]
        interpreter.set_tensor(given["index"], np.reshape(whole, (1, 4, 2)).astype(given["dtype"]))
        interpreter.invoke()
        numbers = interpreter.get_tensor(result["index"])[0].tolist()
        expected.append([(number - centre) * step for number in numbers])
    runner = TFLiteRunner(tmp_path / "q.tflite")
    (spec,) = runner.inputs.values()
    assert (spec.shape[1:], spec.dtype) == ((4, 2), "float32")
    assert (runner.step, runner.classes) == (pytest.approx(step), 3)
    found = runner(np.float32(1.2) * inputs)
    # float64 rounds one or another input to the neighbouring number: a step of few.
    assert (np.abs(found - expected) > 1e-5).mean() < 0.05
    # And what it says is about what the float network says: eight bits of the range.
    error = np.abs(TFLiteRunner(tmp_path / "q.tflite")(inputs) - logits)
    assert error.max() < 0.1 * np.ptp(logits)


def test_a_file_of_one_batch_size_is_given_such_batches(converted, inputs, logits, tmp_path):
    (tmp_path / "ten.tflite").write_bytes(converted(batch=10))
    found = TFLiteRunner(tmp_path / "ten.tflite")(inputs)  # 23 of them
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)


def test_a_file_of_several_tensors_is_refused(tmp_path):
    spec = tf.TensorSpec([None, 3], tf.float32)
    concrete = tf.function(lambda a, b: a + b).get_concrete_function(spec, spec)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    (tmp_path / "two.tflite").write_bytes(converter.convert())
    with pytest.raises(UsageError, match=r"two.tflite has 2 inputs, .* one signature that names"):
        TFLiteRunner(tmp_path / "two.tflite")


@pytest.mark.parametrize("wrong", ["logits", "no file"])
def test_wrong_blocks_are_not_used(ticket, inputs, tmp_path, monkeypatch, wrong):
    """The converter's encoding is of another network, or cannot be read: rows are used instead."""
    model = ticket.model()
    other = ticket.model()
    other.layers[-1].bias.assign_add([1.0, 0.0, 0.0])
    dense = converter.convert(model)
    broken = converter.convert(other) if wrong == "logits" else b"no file"
    monkeypatch.setattr(tflite, "convert", lambda given, *, sparse: broken)
    (tmp_path / "a.tflite").write_bytes(Float32().encode(model, dense, Material(examples=inputs)))
    found = TFLiteRunner(tmp_path / "a.tflite")(inputs)
    np.testing.assert_allclose(found, model(inputs), rtol=1e-5, atol=1e-5)


def test_correct_blocks_are_used(ticket, inputs):
    model = ticket.model()
    dense, blocks = converter.convert(model), converter.convert(model, sparse=True)
    assert Float32().encode(model, dense, Material(examples=inputs)) == blocks
